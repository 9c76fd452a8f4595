"""Roboflow's package manifests as artifacts of one model card."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import attrs

from inference_models.card import Artifact, Batch, File, ModelCard
from inference_models.download.ask import encrypted
from inference_models.errors import DownloadFailed, InvalidCard
from inference_models.negotiation.constraints import PRECISIONS
from inference_models.providers.roboflow_api import PATH
from inference_models.strict_json import Node

BASE = "base/"
"""Where a package of an adapter may hold what it adapts."""

SCHEMA = "external-model-metadata-v1"
_PACKAGE = "external-model-package-v1"
_DEPENDENCY = "model-dependency-v1"

_MOST_PACKAGES = 1000
_MOST_FILES = 1000
_MOST_CLASSES = 100_000
_LARGEST_BATCH = 65_536

_TASKS = {"vlm": "vision-language"}
"""Tasks that are called otherwise there."""
_PRECISIONS = {p: p for p in PRECISIONS} | {"unknown": "fp32"}

CODE = ("trt", "torch-script")
"""Formats whose files are programs: only what Roboflow itself made is used."""


def card_of(pages: Iterable[Node], host: str) -> ModelCard:
    """One card of all packages; `InvalidCard` if the answer itself is wrong.

    A package that cannot be used becomes an artifact that `needs` "unsupported", with
    the reason: it is never chosen, and `explain` shows why.
    """
    pages = iter(pages)
    first = next(pages)
    _check_type(first, SCHEMA)
    model_id = first.text("modelId")
    architecture, task = first.text("modelArchitecture"), first.text("taskType")
    found: dict[str, Artifact] = {}
    source = f"{host}{PATH}?modelId={quote(model_id, safe='')}"
    for page in itertools.chain([first], pages):
        _check_type(page, SCHEMA)
        if page.text("modelId") != model_id:
            raise page.wrong("modelId", "differs from page to page")
        if "modelPackages" not in page.data:
            raise page.wrong("modelPackages", "is missing")
        for node in page.nodes("modelPackages", _MOST_PACKAGES):
            _add(found, node, source)
    return ModelCard(
        id=model_id,
        architecture=architecture,
        task=_TASKS.get(task, task),
        artifacts=_based(tuple(found.values()), first),
        config=_config(first, architecture),
    )


def _check_type(node: Node, known: str) -> None:
    kind = node.text("type")
    if kind != known:
        raise node.wrong(
            "type", f"is {kind[:60]!r}, and this version reads {known!r}; update it"
        )


def _config(first: Node, architecture: str) -> dict[str, Any]:
    variant = first.maybe_text("modelVariant")
    size = {} if variant is None else {"size": variant.removeprefix(f"{architecture}-")}
    return {**size, **_recommended(first)}


def _recommended(node: Node) -> dict[str, Any]:
    """`recommendedParameters` under the config's key "recommended"."""
    given = node.maybe_node("recommendedParameters")
    if given is None:
        return {}
    confidence = given.number("confidence", 0, 1)
    by_class = given.maybe_node("perClassConfidence")
    named = {} if by_class is None else _by_class(by_class)
    if confidence is None and not named:
        return {}
    return {"recommended": {"confidence": confidence, "by_class": named}}


def _by_class(node: Node) -> dict[str, float]:
    if len(node.data) > _MOST_CLASSES:
        raise InvalidCard(f"{node.place} has more than {_MOST_CLASSES} classes")
    found = ((name, node.number(name, 0, 1)) for name in node.data)
    return {name: value for name, value in found if value is not None}


def _based(artifacts: tuple[Artifact, ...], first: Node) -> tuple[Artifact, ...]:
    """Artifacts that are adapters, with the model that they adapt and do not hold."""
    for dependency in first.nodes("modelDependencies", 10):
        _check_type(dependency, _DEPENDENCY)
        if dependency.text("name") == "base_model":
            base = dependency.text("modelId")
            return tuple(
                attrs.evolve(a, base=base) if _wants_base(a) else a for a in artifacts
            )
    return artifacts


def _wants_base(artifact: Artifact) -> bool:
    has_it = any(file.name.startswith(BASE) for file in artifact.files)
    return artifact.format == "hf" and not has_it


def _add(found: dict[str, Artifact], node: Node, source: str) -> None:
    """Read one package; what is wrong with it concerns no other."""
    number = len(found)
    try:
        package = _package_id(node)
        if package in found:
            raise node.wrong("packageId", f"{package!r} is there more than once")
        found[package] = _artifact(node, source)
    except InvalidCard as error:
        reason = str(error).removeprefix(f"{node.place}: ")
        found[f"#{number}"] = _unsupported(node, f"{node.place}: {reason}")


def _package_id(node: Node) -> str:
    package = node.text("packageId")
    if not re.fullmatch(r"[A-Za-z0-9]{1,255}", package):
        raise node.wrong("packageId", f"{package[:60]!r} is not of letters and digits")
    return package


def _unsupported(node: Node, reason: str) -> Artifact:
    manifest = node.data.get("packageManifest")
    kind = manifest.get("type") if isinstance(manifest, Mapping) else None
    known = isinstance(kind, str) and re.fullmatch(r"[a-z0-9-]{1,60}", kind)
    name = str(kind).partition("-model-package")[0] if known else "unknown"
    return Artifact(name, {}).refused(reason)


def _artifact(node: Node, source: str) -> Artifact:
    _check_type(node, _PACKAGE)
    manifest = node.node("packageManifest")
    kind = manifest.text("type")
    if kind not in _READERS:
        raise manifest.wrong("type", f"{kind[:60]!r} is of no backend known here")
    form, read_needs, entries = _READERS[kind]
    if form in CODE and not node.flag("trustedSource"):
        raise node.wrong("trustedSource", f"is not true, and {form} files run as code")
    files = _files(node, source)
    return Artifact(
        format=form,
        graphs=_graphs(files, entries, node),
        files=files,
        precision=manifest.choice("quantization", _PRECISIONS) or "fp32",
        batch=_batch(manifest, form),
        needs=_known(read_needs(manifest)),
        config={**_features(node), **_recommended(node)},
    )


def _files(node: Node, source: str) -> tuple[File, ...]:
    if "packageFiles" not in node.data:
        raise node.wrong("packageFiles", "is missing")
    entries = node.nodes("packageFiles", _MOST_FILES)
    package = node.text("packageId")
    return tuple(_file(entry, f"{source}#{package}/") for entry in entries)


def _file(entry: Node, prefix: str) -> File:
    handle, md5 = entry.text("fileHandle"), entry.maybe_text("md5Hash")
    if md5 is None:
        raise entry.wrong("md5Hash", f"of {handle[:60]!r} is missing")
    if not encrypted(entry.text("downloadUrl")):
        raise entry.wrong("downloadUrl", f"of {handle[:60]!r} is no https:// address")
    return File(handle, (prefix + quote(handle),), md5=md5.lower())


def file_of(source: str) -> tuple[str, str, str]:
    """Model, package and file that a source names; `DownloadFailed` if none."""
    parts = urlsplit(source)
    query, (package, _, handle) = parts.query, parts.fragment.partition("/")
    if not query.startswith("modelId=") or not package or not handle:
        raise DownloadFailed(f"{source!r} is no file of a Roboflow package")
    return unquote(query.removeprefix("modelId=")), package, unquote(handle)


def _graphs(
    files: Sequence[File], entries: Sequence[str], node: Node
) -> dict[str, str]:
    """Entry files by graph: the one of the usual name, or each of its suffix."""
    names = [file.name for file in files]
    if not entries:
        return {"main": "."}
    for entry in entries:
        if entry in names:
            return {"main": entry}
    suffix = entries[0].rpartition(".")[2]
    several = [n for n in names if n.endswith(f".{suffix}") and "/" not in n]
    if not several:
        raise node.wrong("packageFiles", f"has none of {', '.join(entries)}")
    return {name.rpartition(".")[0]: name for name in several}


def _batch(manifest: Node, form: str) -> Batch | None:
    """None for any size; exactly one of `dynamicBatchSize`, `staticBatchSize` is."""
    if form == "hf":
        return None
    dynamic = manifest.flag("dynamicBatchSize")
    fixed = manifest.whole("staticBatchSize", 1, _LARGEST_BATCH)
    if dynamic == (fixed is not None):
        raise manifest.wrong(
            "dynamicBatchSize", "or staticBatchSize must be given, and not both"
        )
    if fixed is not None:
        return fixed, fixed, fixed
    return _range(manifest) if form == "trt" else None


def _range(manifest: Node) -> Batch:
    keys = ("minBatchSize", "optBatchSize", "maxBatchSize")
    least, best, most = (manifest.whole(key, 1, _LARGEST_BATCH) for key in keys)
    if least is None or best is None or most is None or not least <= best <= most:
        raise manifest.wrong("minBatchSize", "to maxBatchSize are missing or unordered")
    return least, best, most


def _features(node: Node) -> dict[str, Any]:
    features = node.maybe_node("modelFeatures")
    return {"features": dict(features.data)} if features and features.data else {}


def _known(needs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in needs.items() if value not in (None, [])}


def _onnx_needs(manifest: Node) -> dict[str, Any]:
    return {
        "opset": manifest.whole("opset", 1, 1000),
        "incompatible_providers": manifest.texts("incompatibleProviders", 50),
    }


def _no_needs(manifest: Node) -> dict[str, Any]:
    return {}


def _script_needs(manifest: Node) -> dict[str, Any]:
    return {
        "devices": manifest.texts("supportedDeviceTypes", 20),
        "torch": manifest.maybe_text("torchVersion"),
        "torchvision": manifest.maybe_text("torchVisionVersion"),
    }


_MACHINES = {"gpu-server": "gpu-server", "jetson": "jetson"}
_SPECS = {
    "driverVersion": "driver",
    "osVersion": "os",
    "l4tVersion": "l4t",
    "deviceName": "jetson",
}


def _engine_needs(manifest: Node) -> dict[str, Any]:
    specs = manifest.maybe_node("machineSpecs")
    told = {} if specs is None else {v: specs.maybe_text(k) for k, v in _SPECS.items()}
    return {
        "compute_capability": manifest.maybe_text("cudaDeviceCC"),
        "device": manifest.maybe_text("cudaDeviceType"),
        "cuda": manifest.maybe_text("cudaVersion"),
        "tensorrt": manifest.maybe_text("trtVersion"),
        "same_compute_capability": manifest.flag("sameCCCompatible"),
        "forward_compatible": manifest.flag("trtForwardCompatible"),
        "lean_runtime_excluded": manifest.flag("trtLeanRuntimeExcluded"),
        "machine": manifest.choice("machineType", _MACHINES),
        **told,
    }


_READERS: dict[str, tuple[str, Callable[[Node], dict[str, Any]], tuple[str, ...]]] = {
    "onnx-model-package-v1": ("onnx", _onnx_needs, ("weights.onnx",)),
    "torch-model-package-v1": (
        "torch",
        _no_needs,
        ("weights.pth", "weights.safetensors", "weights.pt", "model.pt"),
    ),
    "hf-model-package-v1": ("hf", _no_needs, ()),
    "torch-script-model-package-v1": (
        "torch-script",
        _script_needs,
        ("weights.torchscript",),
    ),
    "trt-model-package-v1": ("trt", _engine_needs, ("engine.plan",)),
}
"""Format, reader of needs and usual entry files, by the manifest's type."""
