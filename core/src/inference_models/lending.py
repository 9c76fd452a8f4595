"""What surrounds a network on a device: the backend's own, or lent by another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from inference_models.errors import Unavailable
from inference_models.interfaces import Backend, Operations
from inference_models.registry import Registry

log = logging.getLogger("inference_models")


def operations_of(backend: Backend, device: str, registry: Registry) -> Operations:
    """The backend's own; on an accelerator, where it has none, those lent for it.

    Where nobody lends any, they are the host's. A backend that says that it lends some
    for the device, and fails to, is named in a warning.
    """
    own = type(backend).operations is not Backend.operations
    if own or device == "cpu":
        return backend.operations(device)
    operations, where, reasons = _lent(device, registry)
    if reasons:
        why = "; ".join(map(str, reasons))
        log.warning("images are prepared %s for %s: %s", where, device, why)
    return operations


def _lent(
    device: str, registry: Registry
) -> tuple[Operations, str, Sequence[Unavailable]]:
    """The first lender's, or the host's; whose they are in words; why others failed."""
    reasons: list[Unavailable] = []
    for lender in _lenders(device, registry):
        try:
            return lender.operations(device), f"by {lender.name}", reasons
        except Unavailable as reason:
            reasons.append(reason)
    return Operations(), "on the CPU", reasons


def _lenders(device: str, registry: Registry) -> Iterator[Backend]:
    """Backends that have operations for others on a device, highest rank first."""
    kind = device.partition(":")[0]
    classes = [cls for cls in registry.backends.values() if kind in cls.lends]
    for cls in sorted(classes, key=lambda cls: (-cls.rank, cls.name)):
        lender = cls()
        if device in devices_of(lender):
            yield lender


def devices_of(backend: Backend) -> Sequence[str]:
    """The devices of a backend that is to help another; none where it fails to say."""
    try:
        return backend.devices()
    except (Exception, SystemExit):  # noqa: BLE001 - why is said where it is to run
        return ()
