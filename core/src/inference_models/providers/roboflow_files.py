"""A package's own files, such as `inference_config.json`, as a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from inference_models.card import (
    Artifact,
    Batch,
    Bundle,
    Facts,
    ModelCard,
    distinct_labels,
    relabelled,
)
from inference_models.errors import InvalidCard, InvalidWeights
from inference_models.interfaces import Architecture
from inference_models.providers.claims import claim
from inference_models.providers.roboflow_packages import BASE
from inference_models.providers.roboflow_preprocessing import (
    CONFIG,
    LARGEST_SIDE,
    preprocessing_of,
)
from inference_models.registry import installed
from inference_models.strict_json import Node, parse, parse_list

NAMES = "class_names.txt"
POINTS = "keypoints_metadata.json"

_LARGEST = 4_000_000  # bytes of a side file
_MOST_CLASSES = 100_000
_MOST_POINTS = 10_000

_TASKS = {
    "softmax": "classification",
    "sigmoid": "multi-label-classification",
}


@attrs.frozen
class _Package:
    """A fetched package's own files, read; parts are None where a file is missing."""

    architecture: type[Architecture[Any]] | None
    names: tuple[str | None, ...] | None
    config: Node | None
    facts: Facts | None
    claimed: ModelCard | None

    @property
    def columns(self) -> int | None:
        """How many classes the network has, where its file tells."""
        return len(self.claimed.labels) or None if self.claimed else None


def completed(bundle: Bundle) -> Bundle:
    """The bundle with labels, preprocessing and batch from the package's own files.

    What the weights tell of themselves (depth, layout, names of tensors) is asked of
    the installed architecture by `claims`. Labels that the user gave stand. Raises
    `InvalidCard` for a value that is wrong, with file and key, and `InvalidWeights`
    where files disagree on the number of classes, or are of a kind that is not read.
    """
    bundle = _with_base(bundle)
    package = _package(bundle)
    _check_supported(bundle, package.claimed)
    labels = _labels(bundle, package)
    config = _card_config(bundle, package, labels)
    card = attrs.evolve(bundle.card, labels=labels, config=config)
    if bundle.card.labels and package.names is not None:
        card = relabelled(card, bundle.card.labels)
    if package.config is not None:
        card = attrs.evolve(card, task=_task(package.config, card.task))
    artifact = attrs.evolve(
        bundle.artifact,
        batch=_batch(bundle.artifact, package),
        rename=_rename(bundle, package),
        config={},
    )
    return attrs.evolve(bundle, card=card, artifact=artifact)


def _with_base(bundle: Bundle) -> Bundle:
    """With the model that it adapts, where the package holds that, too."""
    files = [
        attrs.evolve(file, name=file.name.removeprefix(BASE))
        for file in bundle.artifact.files
        if file.name.startswith(BASE)
    ]
    if bundle.base is not None or not files:
        return bundle
    artifact = Artifact(bundle.artifact.format, bundle.artifact.graphs, files)
    base = completed(Bundle(bundle.card, artifact, bundle.folder / BASE))
    return attrs.evolve(bundle, base=base)


def _check_supported(bundle: Bundle, claimed: ModelCard | None) -> None:
    for artifact in claimed.artifacts if claimed else ():
        reason = artifact.unsupported
        if reason and artifact.format == bundle.artifact.format:
            raise InvalidWeights(f"{bundle.card.id!r} cannot be run: {reason}")


def _package(bundle: Bundle) -> _Package:
    architecture = installed().architecture(bundle.card.architecture)
    facts = _facts(bundle)
    claimed = claim(architecture, facts) if architecture and facts else None
    names = _names(bundle, architecture or Architecture)
    return _Package(architecture, names, _config(bundle), facts, claimed)


def _read(bundle: Bundle, name: str) -> bytes | None:
    """A side file's content, cut where it is too long; None if it is not there."""
    if all(file.name != name for file in bundle.artifact.files):
        return None
    with (bundle.folder / name).open("rb") as file:
        return file.read(_LARGEST + 1)


def _config(bundle: Bundle) -> Node | None:
    content = _read(bundle, CONFIG)
    return None if content is None else parse(content, CONFIG, _LARGEST)


def _names(
    bundle: Bundle, architecture: type[Architecture[Any]]
) -> tuple[str | None, ...] | None:
    """A label a line; a blank line is a column without a name, but for the last."""
    content = _read(bundle, NAMES)
    if content is None:
        return None
    if len(content) > _LARGEST:
        raise InvalidCard(f"{NAMES} is larger than {_LARGEST} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidCard(f"{NAMES} is not written in UTF-8: {error}") from error
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if not any(map(str.strip, lines)) or len(lines) > _MOST_CLASSES:
        raise InvalidCard(f"{NAMES} names {len(lines)} classes, not 1 to 100000")
    return distinct_labels(architecture.named([line.strip() for line in lines]))


def _facts(bundle: Bundle) -> Facts | None:
    """What an installed backend reads in the file, or the folder, of graph `main`."""
    artifact = bundle.artifact
    if "main" not in artifact.graphs:
        return None
    for cls in installed().backends.values():
        if artifact.format in cls.formats:
            facts = cls().inspect(bundle.path())
            if facts is not None:
                return facts
    return None


def _labels(bundle: Bundle, package: _Package) -> tuple[str | None, ...]:
    """The file's, without removed classes, or else the user's; one for each column.

    A network may have a last column that stands for no class.
    """
    names, columns, given = package.names, package.columns, bundle.card.labels
    if names is None:
        return given or (package.claimed.labels if package.claimed else ())
    if columns is not None and len(names) == columns - 1:
        names = (*names, None)
    if columns is not None and len(names) != columns:
        raise InvalidWeights(
            f"{NAMES} of {bundle.card.id!r} names {len(names)} classes, and its "
            f"network has {columns}; fetch it again, or take another version"
        )
    removed = _removed(package.config)
    return tuple(None if name in removed else name for name in names)


def _removed(config: Node | None) -> set[str]:
    """Names that `class_names_operations` takes out; their columns stay."""
    if config is None:
        return set()
    operations = config.nodes("class_names_operations", _MOST_CLASSES)
    for operation in operations:
        operation.choice("type", {"class_name_removal": True})
        operation.text("type")
    return {operation.text("class_name") for operation in operations}


def _card_config(
    bundle: Bundle, package: _Package, labels: Sequence[str | None]
) -> dict[str, Any]:
    """All that is known, the package's own words last."""
    claimed = dict(package.claimed.config) if package.claimed else {}
    config = {**bundle.config, **claimed}
    recommended = config.pop("recommended", None)
    if recommended:
        config["confidence"] = {"best": _best(recommended, labels)}
    config |= _key_points(bundle, len(labels))
    if package.config is None:
        return config
    _check_initialization(package.config, labels)
    trained_with = (package.architecture or Architecture).trained_with
    config["preprocessing"] = preprocessing_of(package.config, trained_with)
    return {**config, **_beside(package.config)}


def _key_points(bundle: Bundle, columns: int) -> dict[str, Any]:
    """Under the config's key for them, the points of each class and what joins them."""
    content = _read(bundle, POINTS)
    if content is None:
        return {}
    classes = parse_list(content, POINTS, _LARGEST, columns)
    found = [_class_points(node, columns) for node in classes]
    if len({one["class_id"] for one in found}) < len(found):
        raise InvalidCard(f"{POINTS}: object_class_id of a class stands twice")
    return {"key_points": found}


def _class_points(node: Node, columns: int) -> dict[str, Any]:
    column = node.whole("object_class_id", 0, columns - 1)
    if column is None:
        raise node.wrong("object_class_id", "is missing")
    named = node.node("keypoints")
    names = [named.maybe_text(str(number)) for number in range(len(named.data))]
    if None in names or len(names) > _MOST_POINTS:
        raise node.wrong("keypoints", "are not numbered from 0")
    edges = node.nodes("edges", _MOST_POINTS)
    ends = [[_end(edge, end, len(names)) for end in ("from", "to")] for edge in edges]
    return {"class_id": column, "names": names, "skeleton": ends}


def _end(edge: Node, key: str, points: int) -> int:
    number = edge.whole(key, 0, points - 1)
    if number is None:
        raise edge.wrong(key, "is missing")
    return number


def _best(recommended: dict[str, Any], labels: Sequence[str | None]) -> Any:
    """One number, or one for each class, the general one where a class has none.

    Classes that nothing is said of are left out where there is no general number.
    """
    general, by_class = recommended.get("confidence"), recommended.get("by_class")
    if not by_class:
        return general
    found = {name: by_class.get(name, general) for name in labels if name}
    return {name: value for name, value in found.items() if value is not None}


def _check_initialization(config: Node, labels: Sequence[str | None]) -> None:
    node = config.maybe_node("model_initialization")
    count = None if node is None else node.whole("num_classes", 1, _MOST_CLASSES)
    if count is not None and labels and not len(labels) - 1 <= count <= len(labels):
        raise InvalidWeights(
            f"{CONFIG} has {count} classes and {NAMES} {len(labels)}; fetch it again"
        )


def _task(config: Node, task: str) -> str:
    """What the network was trained for, where a classifier's package says so."""
    node = config.maybe_node("post_processing")
    kind = None if node is None else node.maybe_text("type")
    return _TASKS.get(kind or "", task) if task in _TASKS.values() else task


def _beside(config: Node) -> dict[str, Any]:
    """What architectures may want to know: free sizes, and what comes after."""
    found: dict[str, Any] = {}
    network = config.node("network_input")
    if network.flag("dynamic_spatial_size_supported"):
        found["dynamic_size"] = _dynamic(network)
    node = config.maybe_node("post_processing")
    if node is not None:
        found["post_processing"] = _after(node)
    return found


def _dynamic(network: Node) -> dict[str, Any]:
    mode = network.node("dynamic_spatial_size_mode")
    kinds = {"pad-to-be-divisible": True, "any-size": False}
    mode.text("type")
    if not mode.choice("type", kinds):
        return {}
    step = mode.whole("value", 1, LARGEST_SIDE)
    if step is None:
        raise mode.wrong("value", "is missing")
    return {"divisible": step}


def _after(node: Node) -> dict[str, Any]:
    kinds = {kind: kind for kind in ("nms", "softmax", "sigmoid")}
    node.text("type")
    found: dict[str, Any] = {"type": node.choice("type", kinds)}
    found["fused"] = node.flag("fused")
    nms = node.maybe_node("nms_parameters")
    if nms is None:
        return found
    found["nms"] = {
        "max_detections": nms.whole("max_detections", 1, 1_000_000),
        "confidence": nms.number("confidence_threshold", 0, 1),
        "iou": nms.number("iou_threshold", 0, 1),
        "class_agnostic": bool(nms.data.get("class_agnostic")),
    }
    return found


def _batch(artifact: Artifact, package: _Package) -> Batch | None:
    """The manifest's, else the graph's own, else what `forward_pass` says.

    Files of tensors have no batch: their network is made here.
    """
    told = _forward_batch(package.config)
    if artifact.batch is not None or artifact.format in ("torch", "hf"):
        return artifact.batch
    claimed = package.claimed.artifacts if package.claimed else ()
    if claimed and claimed[0].batch is not None:
        return claimed[0].batch
    return told


def _forward_batch(config: Node | None) -> Batch | None:
    node = None if config is None else config.maybe_node("forward_pass")
    if node is None:
        return None
    fixed = node.whole("static_batch_size", 1, 65_536)
    most = node.whole("max_dynamic_batch_size", 1, 65_536)
    if fixed is not None:
        return fixed, fixed, fixed
    return None if most is None else (1, min(most, 16), most)


def _rename(bundle: Bundle, package: _Package) -> dict[str, str]:
    """Tensors of the file as the architecture names them.

    The architecture's own knowledge of the file comes before the order of outputs. An
    only input is the image, whatever its name.
    """
    architecture = package.architecture
    if architecture is None or bundle.artifact.format in ("torch", "hf"):
        return dict(bundle.artifact.rename)
    rename = {f"#{number}": name for number, name in enumerate(architecture.outputs)}
    if package.claimed and package.claimed.artifacts:
        rename = dict(package.claimed.artifacts[0].rename)
    inputs = package.facts.metadata.get("inputs") if package.facts else None
    if isinstance(inputs, list) and len(inputs) == 1:
        graph, name = architecture.image_input
        if graph == "main" and inputs[0] != name:
            rename[inputs[0]] = name
    return rename
