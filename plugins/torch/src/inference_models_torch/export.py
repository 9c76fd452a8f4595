"""PyTorch modules written as ONNX files, by torch's own exporter."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from inference_models import (
    Architecture,
    Artifact,
    Bundle,
    InvalidWeights,
    TensorSpec,
)
from inference_models.disk import described
from inference_models.errors import first_line
from inference_models.progress import Report
from inference_models_torch.forks import lock_across_forks
from inference_models_torch.modules import DTYPES, cast, load_modules
from inference_models_torch.session import Signature, by_name
from inference_models_torch.translations import TRANSLATIONS

OPSET = 20

# A protobuf file ends at 2 GiB; the graph itself needs a little of it.
_SINGLE_FILE = 2_000_000_000

# Sizes of free dimensions to trace with. torch takes 0 and 1 for special; a multiple of
# 224 is one of 7, 14, 16 and 32, which networks ask of an image's sides.
_BATCH, _SIDE = 2, 224
_SIDES = ("height", "width")

_WARNING = r"(torch|onnxscript|onnx_ir|copyreg|transformers|inference_models\w*)(\.|$)"
"""Modules that have only their own makers to warn, as a regular expression."""

# torch's tracing and `_quiet` change what belongs to the whole process.
_EXPORTING = lock_across_forks()


def export_bundle(
    source: Bundle,
    architecture: Architecture[Any],
    precision: str,
    folder: Path,
    report: Report,
) -> Artifact:
    """Write each graph into `folder` as ONNX that takes batches of any size."""
    report("reading the weights", 0.0)
    modules = load_modules(source, architecture, "cpu", precision)
    artifact = export_modules(modules, architecture, precision, folder, report)
    return attrs.evolve(artifact, config=source.artifact.config)


def export_modules(
    modules: Mapping[str, nn.Module],
    architecture: Architecture[Any],
    precision: str,
    folder: Path,
    report: Report,
) -> Artifact:
    """Write modules that are on the CPU, in this precision; what was written."""
    graphs, rename = {}, {}
    for number, (graph, module) in enumerate(modules.items()):
        report(f"exporting graph {graph!r} to ONNX", (number + 0.5) / len(modules))
        signature = architecture.signature(graph)
        graphs[graph] = "model.onnx" if graph == "main" else f"{graph}.onnx"
        names = _output_names(signature)
        rename.update({file: ours for file, ours in names.items() if file != ours})
        wrapped = _Positional(module, signature, DTYPES[precision])
        plain = torch.autocast("cpu", enabled=False)  # of the caller's own code
        with _EXPORTING, _quiet(), plain, _explained(graph):
            _write(wrapped, signature, list(names), folder / graphs[graph])
    report("written", 1.0)
    return Artifact(
        format="onnx",
        graphs=graphs,
        files=tuple(described(file) for file in sorted(folder.iterdir())),
        precision=precision,
        rename=rename,
        needs={"opset": OPSET},
    )


class _Positional(nn.Module):
    """Inputs in order to outputs in order; float32 outside, whatever is inside."""

    def __init__(
        self, module: nn.Module, signature: Signature, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.module = module
        self._names = list(signature[1])
        self._dtype = dtype

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the module in its precision."""
        returned = self.module(*cast(tensors, self._dtype))
        outputs = by_name(returned, self._names).values()
        return tuple(cast(output, torch.float32) for output in outputs)


def _write(
    module: nn.Module, signature: Signature, outputs: list[str], path: Path
) -> None:
    inputs, _ = signature
    sizes = _free_sizes(inputs)
    size = sum(t.nbytes for t in module.state_dict().values())
    program = torch.onnx.export(
        module,
        tuple(_example(spec, sizes) for spec in inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=(tuple(_free_axes(spec) for spec in inputs.values()),),
        verbose=False,
        custom_translation_table=TRANSLATIONS,
    )
    for node in program.model.graph.all_nodes():
        # It names files of this machine.
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        # torch names values after what made them: "embedding", "relu", "sigmoid".
        for value in node.outputs:
            if value.name in (*inputs, *outputs):
                value.name = f"inner.{value.name}"
    # torch 2.10 names aliases of one tensor after the last of them.
    for name, output in zip(outputs, program.model.graph.outputs, strict=True):
        output.name = name
    program.save(path, external_data=size > _SINGLE_FILE)


def _output_names(signature: Signature) -> dict[str, str]:
    """Output names in the file, and the architecture's for them.

    ONNX Runtime rejects a graph whose input and output share a name, as a state's do.
    """
    inputs, outputs = signature
    return {f"next.{name}" if name in inputs else name: name for name in outputs}


def _free_sizes(inputs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """A size for each free dimension; different ones, or torch takes them for one."""
    free = [size for spec in inputs.values() for size in spec.shape]
    names = [n for n in dict.fromkeys(free) if isinstance(n, str) and n != "batch"]
    sides = {n: _SIDE * i for i, n in enumerate(_SIDES, start=1)}
    others = [name for name in names if name not in sides]
    return {"batch": _BATCH, **sides, **{n: 3 + i for i, n in enumerate(others)}}


def _free_axes(spec: TensorSpec) -> dict[int, str]:
    return {i: size for i, size in enumerate(spec.shape) if isinstance(size, str)}


def _example(spec: TensorSpec, sizes: Mapping[str, int]) -> torch.Tensor:
    shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.ones(shape, dtype=getattr(torch, spec.dtype))


@contextlib.contextmanager
def _explained(graph: str) -> Iterator[None]:
    """What the exporter cannot do, in a sentence; its own text fills a screen."""
    try:
        yield
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise InvalidWeights(
            f"torch {torch.__version__} cannot write graph {graph!r} as ONNX: "
            f"{type(cause).__name__}: {first_line(cause)}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter logs and warns of; its errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # Of these modules alone, since other threads go on and may warn meanwhile.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=_WARNING)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
