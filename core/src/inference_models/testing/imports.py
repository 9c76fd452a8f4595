"""What a plugin imports before it is chosen, seen in an interpreter of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from inference_models.card import Artifact, Facts, Plan
from inference_models.errors import Unavailable
from inference_models.interfaces import Architecture, Backend
from inference_models.testing.toy import toy_card


def runtimes_imported(cls: type[Any], runtimes: Sequence[str]) -> list[str]:
    """Which of `runtimes` the class's module imports, or what negotiation calls."""
    code = f"import sys; from {__name__} import answer; answer(*sys.argv[1:])"
    where = [cls.__module__, inspect.getfile(cls), cls.__qualname__]
    path = os.pathsep.join(folder or os.curdir for folder in sys.path)
    result = subprocess.run(  # noqa: S603 - this very module
        [sys.executable, "-c", code, *where, *runtimes],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    names: list[str] = json.loads(result.stdout.splitlines()[-1])
    return names


def answer(module: str, file: str, name: str, *runtimes: str) -> None:
    """Print, in the new interpreter, which of the runtimes a class has imported."""
    before = set(sys.modules)
    cls = attrgetter(name)(_module(module, file))
    if issubclass(cls, Backend):
        _ask(cls)
    elif issubclass(cls, Architecture):
        _list(cls)
    else:
        list(cls().models())
    found = [name for name in runtimes if name in sys.modules and name not in before]
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def _module(name: str, file: str) -> Any:
    if importlib.util.find_spec(name.partition(".")[0]) is not None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("plugin", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plugin"] = module
    spec.loader.exec_module(module)
    return module


def _ask(cls: type[Backend]) -> None:
    backend = cls()
    artifact = Artifact(cls.formats[0], {"main": "model"})
    try:
        devices = backend.devices()
        backend.advice()
    except Unavailable:
        return
    for device in devices:
        for precision in backend.precisions(artifact, device):
            backend.refuse(toy_card(artifact), artifact, Plan(device, precision))


def _list(cls: type[Any]) -> None:
    list(cls.cards())
    cls.claims(Facts("unknown", {}))
