"""transformers' own classes, filled strictly from a folder on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn
from transformers.utils import logging

from inference_models import Bundle, InvalidWeights
from inference_models.errors import first_line
from inference_models_hf.folder import CONFIG, objection, parts_of, read_config
from inference_models_torch.forks import lock_across_forks
from inference_models_torch.header import check_header
from inference_models_torch.modules import listed, within_files

_CLASSES = {
    "object-detection": "AutoModelForObjectDetection",
    "instance-segmentation": "AutoModelForInstanceSegmentation",
    "classification": "AutoModelForImageClassification",
    "multi-label-classification": "AutoModelForImageClassification",
    "vision-language": "AutoModelForImageTextToText",
}
"""Who chooses the class of a task, of those that are a part of transformers."""

_MOST_LAYERS = 10_000
_MOST_LABELS = 100_000
_WIDEST = 64  # Swin's tables grow with its fourth power
_LARGEST_LEVIT = 512  # as does the time that LeViT takes to make its own, in Python

# While transformers fills a model, it has torch neither draw nor tie weights, in all
# threads: what another makes meanwhile would lack those that are tied.
_FILLING = lock_across_forks()


def load_model(bundle: Bundle, dtype: torch.dtype) -> nn.Module:
    """The model of a folder; `InvalidWeights` unless the files fill all of it."""
    task = bundle.card.task
    if task not in _CLASSES:
        raise InvalidWeights(
            f"{bundle.card.id!r} is for {task}, and transformers is asked for "
            f"{', '.join(_CLASSES)} alone"
        )
    _check_config(bundle)
    chooser = getattr(transformers, _CLASSES[task])
    try:
        files = sorted(bundle.folder.glob("*.safetensors"))
        with _FILLING, _quiet(), within_files(files, sum(map(_count, files))):
            model, report = chooser.from_pretrained(
                str(bundle.folder),
                dtype=dtype,
                ignore_mismatched_sizes=True,  # they are reported, and refused below
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except InvalidWeights:
        raise
    except Exception as error:
        raise _explained(bundle, error) from error
    _check_filled(bundle, report)
    filled: nn.Module = model.eval().requires_grad_(False)
    return filled


def _check_config(bundle: Bundle) -> None:
    """Raise for a config that wants what it must not, which a card may not tell.

    Also for one whose numbers would fill the memory before one layer is made:
    transformers writes lists and tables of them first.
    """
    config = read_config(bundle.folder)
    if reason := objection(bundle.folder, config):
        raise InvalidWeights(f"{bundle.card.id!r} is not loaded: {reason}")
    for key, what, count, most in _counts(config):
        if count > most:
            raise InvalidWeights(
                f"the {CONFIG} of {bundle.card.id!r} wants {count} {what} ({key}), and "
                f"no network has more than {most}"
            )


def _counts(config: Mapping[str, Any]) -> Iterator[tuple[str, str, int, int]]:
    """What the settings of a config and of its parts want how many of, at most."""
    for part in parts_of(config):
        for key, value in part.items():
            count = _sum(value)
            if key.endswith(("depth", "depths", "layers")):
                yield key, "layers", count, _MOST_LAYERS
            elif key == "num_labels":
                yield key, "classes", count, _MOST_LABELS
            elif key == "window_size":
                yield key, "patches a side of a window", count, _WIDEST
            elif key == "image_size" and part.get("model_type") == "levit":
                yield key, "pixels a side", count, _LARGEST_LEVIT


def _sum(value: Any) -> int:
    values = value if isinstance(value, list) else [value]
    return sum(each for each in values if isinstance(each, int))


def _count(path: Path) -> int:
    """How many tensors a file holds."""
    check_header(path)
    with safe_open(path, framework="np") as file:
        return len(file.keys())


def _explained(bundle: Bundle, error: Exception) -> InvalidWeights:
    reason = first_line(error)
    return InvalidWeights(
        f"transformers {transformers.__version__} cannot load {bundle.card.id!r} from "
        f"{str(bundle.folder)!r}: {reason}"
    )


def _check_filled(bundle: Bundle, report: Mapping[str, Any]) -> None:
    """Raise for tensors that transformers would leave at random values."""
    for key, what in (("missing_keys", "lacks"), ("mismatched_keys", "misshapes")):
        names = [name if isinstance(name, str) else name[0] for name in report[key]]
        if problem := listed(what, names):
            raise InvalidWeights(
                f"{str(bundle.folder)!r} {problem}; is it of another model?"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what transformers prints, logs and warns of; its errors are raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Renamed(nn.Module):
    """A model of transformers whose outputs have the architecture's names.

    A view of one that returns no mapping has them in the architecture's order.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        super().__init__()
        self.model = model
        self._names = dict(names)

    def forward(self, *tensors: torch.Tensor) -> Any:
        """The outputs that the architecture knows."""
        returned = self.model(*tensors)
        if not isinstance(returned, Mapping):
            return returned
        return {ours: returned[theirs] for theirs, ours in self._names.items()}
