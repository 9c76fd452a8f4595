"""What the user named for a model to run by, read from the arguments of a call."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import attrs

from inference_models.card import Batch
from inference_models.errors import InvalidOption
from inference_models.interfaces import Backend
from inference_models.registry import installed

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What can be named as `quantization`, whatever is installed."""

_DEVICE = re.compile(r"[a-z][a-z0-9_-]*(:\d+)?")
_WITHOUT_NUMBER = {"cpu:0": "cpu", "mps:0": "mps"}
"""Devices of which there is one: torch numbers them, too."""


def is_device(name: str) -> bool:
    """Whether this is written as a device's name is: "cpu", "cuda:0"."""
    return _DEVICE.fullmatch(name) is not None


def known_precisions() -> list[str]:
    """What can be named as `quantization` here: also what installed backends add."""
    return _with_own(installed().backends.values())


@attrs.frozen
class Constraints:
    """What the user named; None is left to negotiation, and only that may change.

    `derive`: a better artifact is built first, or none at all. `building`: something is
    built, perhaps for a device that is not here.
    """

    backends: tuple[str | Backend, ...] | None = None
    device: str | None = None
    precision: str | None = None
    batch: Batch | None = None
    derive: bool | None = None
    building: bool = False

    @property
    def names_target(self) -> bool:
        """Whether a device is named to build for, which need not be here."""
        return self.building and self.device is not None

    @classmethod
    def read(
        cls, backend: Any, device: Any, precision: Any, batch: Any, derive: Any
    ) -> Constraints:
        """From the arguments of `from_pretrained`; `InvalidOption` for a wrong one."""
        backends = _read_backends(backend)
        return cls(
            backends=backends,
            device=_read_device(device),
            precision=_read_precision(precision, backends or ()),
            batch=_read_batch(batch),
            derive=_read_derive(derive),
        )


def _read_backends(backend: Any) -> tuple[str | Backend, ...] | None:
    if backend is None:
        return None
    named = backend if isinstance(backend, (list, tuple, set)) else [backend]
    if not named:
        raise InvalidOption(f"backend {backend!r} names none; leave it out")
    values = tuple(str(n.value) if hasattr(n, "value") else n for n in named)
    for value in values:
        if not isinstance(value, (str, Backend)):
            raise InvalidOption(
                f"backend {value!r} is neither a name, such as 'onnx', nor a Backend"
            )
    return tuple(v.lower() if isinstance(v, str) else v for v in values)


def _read_device(device: Any) -> str | None:
    if device is None:
        return None
    name = str(device).lower()
    if not is_device(name):
        raise InvalidOption(
            f"device {device!r} is not a name such as 'cpu' or 'cuda:0'"
        )
    return _WITHOUT_NUMBER.get(name, name)


def _read_precision(
    precision: Any, backends: Iterable[str | Backend] = ()
) -> str | None:
    if precision is None:
        return None
    name = str(getattr(precision, "value", precision)).lower()
    if name in PRECISIONS:
        return name
    given = [type(each) for each in backends if isinstance(each, Backend)]
    known = _with_own([*installed().backends.values(), *given])
    if name not in known:
        listed = ", ".join(map(repr, known))
        raise InvalidOption(f"quantization {precision!r} is not one of {listed}")
    return name


def _with_own(backends: Iterable[type[Backend]]) -> list[str]:
    own = {precision for cls in backends for precision in cls.own_precisions}
    return [*PRECISIONS, *sorted(own - {*PRECISIONS})]


def _read_batch(batch: Any) -> Batch | None:
    if batch is None:
        return None
    given = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
    numbers = [isinstance(n, Integral) and not isinstance(n, bool) for n in given]
    sizes = tuple(map(int, given)) if all(numbers) else ()
    ordered = list(sizes) == sorted(sizes) and all(n > 0 for n in sizes)
    if not ordered or len(sizes) not in (1, 2, 3):
        raise InvalidOption(
            f"batch_size {batch!r} is not a number above 0, nor (min, max), nor "
            "(min, best, max)"
        )
    if len(sizes) == 1:
        return 1, sizes[0], sizes[0]
    return sizes[0], sizes[1], sizes[-1]  # of (min, max) the best is the largest


def _read_derive(derive: Any) -> bool | None:
    if derive is None:
        return _always_derives() or None
    if not isinstance(derive, bool):
        raise InvalidOption(f"derive {derive!r} is neither True nor False")
    return derive


def _always_derives() -> bool:
    named = os.environ.get("INFERENCE_MODELS_DERIVE", "").strip().lower()
    if named not in ("", "always"):
        raise InvalidOption(
            f"INFERENCE_MODELS_DERIVE {named!r} is not 'always'; leave it out, and "
            "nothing is built that was not asked for"
        )
    return named == "always"
