"""An ONNX file made into an engine, by the TensorRT that is installed here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import attrs

from inference_models import InvalidWeights, TensorSpec
from inference_models.card import Batch
from inference_models.disk import write_atomically
from inference_models.progress import Report
from inference_models_trt.callbacks import Logger, Monitor
from inference_models_trt.gpu import Gpu
from inference_models_trt.installed import Capability
from inference_models_trt.phases import Phases
from inference_models_trt.runtime import trt
from inference_models_trt.tensors import sizes_of, spec_of
from inference_models_trt.timing import load_timings, save_timings

_INTERRUPTIBLE = 0.1  # seconds; a wait without an end hears no Ctrl-C on Windows


@attrs.frozen
class BuildSettings:
    """What an engine is built for, beside its ONNX file.

    `capability` is what TensorRT for RTX builds for; TensorRT builds for the GPU of the
    number `device`. `workspace` is in bytes; what is None is left to TensorRT.
    `timings` is a file that lets TensorRT measure nothing twice.
    """

    batch: Batch
    capability: Capability | None = None
    device: int | None = None
    workspace: int | None = None
    optimization_level: int | None = None
    timings: Path | None = None


@attrs.frozen
class Built:
    """An engine's tensors by name, in order, and the batches that it takes."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    batch: Batch


def build(source: Path, target: Path, settings: BuildSettings, report: Report) -> Built:
    """Write the engine of an ONNX file to `target`, whole or not at all.

    Raises `InvalidWeights` for what TensorRT cannot parse or build. Ctrl-C ends it at
    the build's next step.
    """
    phases = Phases(report)
    with ThreadPoolExecutor(1, thread_name_prefix="trt-build") as thread:
        future = thread.submit(_build, source, settings, phases)
        engine, built = _wait(future, phases)
    write_atomically(target, engine)
    report("built", 1.0)
    return built


def _wait(future: Future[tuple[Any, Built]], phases: Phases) -> tuple[Any, Built]:
    """What a build gives; what interrupts the wait ends the build."""
    try:
        while not future.done():
            wait([future], timeout=_INTERRUPTIBLE)
    except BaseException:
        phases.stop = True
        raise
    if phases.failure is not None:
        raise phases.failure
    return future.result()


def _build(source: Path, settings: BuildSettings, phases: Phases) -> tuple[Any, Built]:
    """The engine, as something with bytes in it."""
    if settings.device is None:
        return _built(source, settings, phases)
    with Gpu(settings.device).current():  # TensorRT builds for that of its thread
        return _built(source, settings, phases)


def _built(source: Path, settings: BuildSettings, phases: Phases) -> tuple[Any, Built]:
    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed())
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise InvalidWeights(
            f"TensorRT cannot read '{source}': {_reason(parser, logger)}"
        )
    built = _describe(network, source, settings.batch)
    config = _config(builder, settings)
    _add_profile(builder, network, config, built.batch)
    config.progress_monitor = monitor = Monitor(phases)
    timings = load_timings(config, settings.timings)
    engine = builder.build_serialized_network(network, config)
    del monitor
    if engine is None:
        raise InvalidWeights(f"TensorRT cannot build '{source}': {logger.reason}")
    save_timings(timings, settings.timings)
    return engine, built


def _strongly_typed() -> int:
    """The flag under which types are the file's; a version without it has no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _reason(parser: trt.OnnxParser, logger: Logger) -> str:
    """The parser's first error: the node, and what is wrong with it."""
    if not parser.num_errors:
        return logger.reason
    error = parser.get_error(0)
    told = " ".join(error.desc().split()).replace("Assertion failed: ", "")
    if error.node() < 0:
        return told if told in logger.reason else f"{told}; {logger.reason}"
    name = f" {error.node_name()!r}" if error.node_name() else ""
    return f"node {error.node()}{name} ({error.node_operator()}): {told}"


def _config(builder: trt.Builder, settings: BuildSettings) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    # With it, float32 would be rounded to ten bits in matrix products.
    config.clear_flag(trt.BuilderFlag.TF32)
    if settings.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.capability is not None:
        _aim(config, settings.capability)
    return config


def _aim(config: Any, capability: Capability) -> None:
    """Build for one compute capability, which TensorRT for RTX alone is told."""
    major, minor = capability
    config.num_compute_capabilities = 1
    known = getattr(trt, "ComputeCapability")  # noqa: B009 - the stubs lack it
    config.set_compute_capability(getattr(known, f"SM{major}{minor}"), 0)


def _describe(network: trt.INetworkDefinition, source: Path, batch: Batch) -> Built:
    inputs = [network.get_input(n) for n in range(network.num_inputs)]
    outputs = [network.get_output(n) for n in range(network.num_outputs)]
    if not outputs:
        raise InvalidWeights(f"TensorRT cannot read '{source}': it has no outputs")
    for tensor in inputs:
        _check_sizes(tensor, source)
    sizes = [sizes_of(tensor.shape)[:1] for tensor in inputs]
    fixed = next((size for (size,) in filter(None, sizes) if size >= 0), 1)
    return Built(
        _specs(inputs),
        _specs(outputs),
        batch if (-1,) in sizes else (fixed, fixed, fixed),
    )


def _check_sizes(tensor: trt.ITensor, source: Path) -> None:
    shape = list(sizes_of(tensor.shape))
    free = [axis for axis, size in enumerate(shape) if size < 0 < axis]
    if free:
        raise InvalidWeights(
            f"input {tensor.name!r} of '{source}' has free sizes beside the batch, in "
            f"axis {free[0]} of {shape}; export it with a fixed size of images"
        )


def _specs(tensors: Sequence[trt.ITensor]) -> dict[str, TensorSpec]:
    return {t.name: spec_of(t.name, t.dtype, t.shape) for t in tensors}


def _add_profile(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    batch: Batch,
) -> None:
    """The sizes that the engine takes, and the one that it is tuned for."""
    inputs = [network.get_input(n) for n in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in sizes_of(tensor.shape)]
    if not free:
        return
    profile = builder.create_optimization_profile()
    for tensor in free:
        rest = sizes_of(tensor.shape)[1:]
        least, best, most = (trt.Dims([size, *rest]) for size in batch)
        profile.set_shape(tensor.name, least, best, most)
    config.add_optimization_profile(profile)
