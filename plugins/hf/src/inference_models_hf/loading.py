"""transformers' own classes, filled strictly from a folder on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
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
from inference_models_hf.folder import CONFIG, settings, wants_code
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

# While transformers fills a model, it has torch neither draw nor tie weights, in all
# threads: what another makes meanwhile would lack those that are tied.
_FILLING = threading.Lock()


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
    """Raise for a config that wants code, which a card beside it may not tell.

    Also for one whose layers would fill the memory before one of them is made:
    transformers writes lists of numbers for them first.
    """
    with contextlib.suppress(OSError, ValueError, RecursionError):  # it says so itself
        config = json.loads((bundle.folder / CONFIG).read_bytes())
        config = config if isinstance(config, dict) else {}
        if reason := wants_code(config):
            raise InvalidWeights(f"{bundle.card.id!r} is not loaded: {reason}")
        for key, count in _layers(config):
            if count > _MOST_LAYERS:
                raise InvalidWeights(
                    f"the {CONFIG} of {bundle.card.id!r} wants {count} layers ({key}), "
                    f"and no network has more than {_MOST_LAYERS}"
                )


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """How many layers each setting says that tells it, of all parts of a config."""
    for key, value in settings(config):
        if key.endswith(("depth", "depths", "layers")):
            values = value if isinstance(value, list) else [value]
            yield key, sum(each for each in values if isinstance(each, int))


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
