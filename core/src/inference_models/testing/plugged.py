"""Classes of a test as plugins, for whole loads by `AutoModel.from_pretrained`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from inference_models import registry
from inference_models.hookspecs import hookimpl


@contextlib.contextmanager
def plugged(*classes: type[Any]) -> Iterator[None]:
    """Have these classes, and core's own, as all plugins there are in this process."""
    hooks = {hook: _returning(classes, kind) for hook, kind in registry.HOOKS.items()}
    module = SimpleNamespace(
        **{hook: hookimpl(found, specname=hook) for hook, found in hooks.items()}
    )
    own = [
        p for p in registry.entry_points() if p.module == "inference_models.providers"
    ]
    tested = registry.Plugin("plugged", "plugged", "0", lambda: module)
    with patch.object(registry, "entry_points", lambda: [*own, tested]):
        registry.refresh()
        try:
            yield
        finally:
            registry.refresh()


def _returning(classes: tuple[type[Any], ...], kind: type[Any]) -> Any:
    found = [cls for cls in classes if issubclass(cls, kind)]
    return lambda: found
