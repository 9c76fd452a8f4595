"""The backend "hf": models of transformers, run and exported as torch's modules are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from inference_models import (
    Architecture,
    Artifact,
    Backend,
    Bundle,
    Facts,
    ModelCard,
    Operations,
    Plan,
    Session,
    Unavailable,
)
from inference_models.interfaces import check_at_least_one
from inference_models.progress import Report
from inference_models_hf.folder import ADAPTER, read_folder

if TYPE_CHECKING:
    from inference_models_torch.backend import TorchBackend

_INSTALL = 'pip install "inference-models-hf[transformers]"'


@attrs.frozen
class HfBackend(Backend):
    """Runs folders that transformers wrote, by classes that are a part of it.

    `threads` and `channels_last` are those of the backend "torch", which it runs by.
    """

    name = "hf"
    aliases = ("hugging-face", "huggingface", "transformers")
    formats = ("hf",)
    rank = 200
    derives = {"hf": "onnx"}  # noqa: RUF012 - a ClassVar of the base class

    threads: int | None = attrs.field(default=None, validator=check_at_least_one)
    channels_last: bool | None = None

    def lacks(self, form: str) -> str | None:
        """The libraries that torch writes ONNX with."""
        from inference_models_torch.backend import lacks_exporter

        return lacks_exporter()

    def devices(self) -> Sequence[str]:
        """Those of torch, where transformers is installed."""
        if find_spec("transformers") is None:
            raise Unavailable(f"transformers is not installed; {_INSTALL}")
        return self._torch().devices()

    def precisions(self, artifact: Artifact, device: str) -> Sequence[str]:
        """The file's own first: nothing here says what half precision would spoil."""
        possible = self._torch().precisions(artifact, device)
        return sorted(possible, key=lambda name: name != artifact.precision)

    def refuse(self, card: ModelCard, artifact: Artifact, plan: Plan) -> str | None:
        """Why not: a library that an adapter or a backbone needs is not installed."""
        names = [file.name for file in artifact.files]
        adapts = artifact.base is not None or ADAPTER in names
        if adapts and find_spec("peft") is None:
            return (
                "it is an adapter, which needs peft; "
                'pip install "inference-models-hf[transformers,adapters]"'
            )
        if artifact.needs.get("timm") and find_spec("timm") is None:
            return (
                "its backbone is one of timm, which is not installed and needs "
                "torchvision; pip install timm, or choose a revision without it"
            )
        return None

    def advice(self) -> Sequence[str]:
        """That of torch, which it runs by."""
        return self._torch().advice()

    def open(
        self, bundle: Bundle, architecture: Architecture[Any], plan: Plan
    ) -> Mapping[str, Session]:
        """A session for each of the architecture's views of the loaded model."""
        torch = self._torch()
        torch.ready(plan.device)
        modules = _modules(bundle, architecture, plan.precision)
        return torch.sessions(modules, architecture, plan)

    def operations(self, device: str) -> Operations:
        """Those of torch, and on the CPU Pillow's resize."""
        self._torch().ready("cpu")
        from inference_models_hf.operations import HfOperations

        return HfOperations(device)

    def inspect(self, path: Path) -> Facts | None:
        """What a folder's `config.json` and `preprocessor_config.json` say."""
        return read_folder(path) if path.is_dir() else None

    def derive(
        self,
        source: Bundle,
        architecture: Architecture[Any],
        plan: Plan,
        folder: Path,
        report: Report,
    ) -> Artifact:
        """Write ONNX as the backend "torch" does."""
        from inference_models_torch.backend import check_exportable
        from inference_models_torch.export import export_modules

        check_exportable(plan.precision)
        report("reading the weights", 0.0)
        modules = _modules(source, architecture, plan.precision)
        artifact = export_modules(modules, architecture, plan.precision, folder, report)
        return attrs.evolve(artifact, config=source.artifact.config)

    def _torch(self) -> TorchBackend:
        if find_spec("inference_models_torch") is None:
            raise Unavailable(f"inference-models-torch is not installed; {_INSTALL}")
        from inference_models_torch.backend import TorchBackend

        return TorchBackend(self.threads, self.channels_last)


def _modules(
    bundle: Bundle, architecture: Architecture[Any], precision: str
) -> dict[str, Any]:
    """Modules by graph on the CPU, in a precision, with the architecture's names."""
    from inference_models_hf.loading import Renamed, load_model
    from inference_models_torch.modules import DTYPES, set_precision

    loaded = load_model(bundle.base or bundle, DTYPES["fp32"])
    if bundle.base is not None:
        from inference_models_hf.adapters import with_adapter

        loaded = with_adapter(loaded, bundle.folder)
    theirs = {ours: file for file, ours in bundle.artifact.rename.items()}
    modules = {}
    for graph, module in architecture.modules(loaded).items():
        _, outputs = architecture.signature(graph)
        names = {theirs.get(name, name): name for name in outputs}
        modules[graph] = Renamed(module, names).eval()
        set_precision(module, DTYPES[precision], architecture.fp32_modules)
    return modules
