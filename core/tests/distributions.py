"""Tiny distributions, laid into a folder as an installer would lay them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from inference_models import registry


def install(site: Path, distribution: str, points: dict[str, str], **modules: str):
    """Write modules by name, and the metadata that declares their entry points."""
    site.mkdir(parents=True, exist_ok=True)
    for name, source in modules.items():
        (site / f"{name}.py").write_text(dedent(source), "utf-8")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata, "utf-8")
    lines = [f"{name} = {module}" for name, module in points.items()]
    text = "\n".join(["[inference_models]", *lines])
    (info / "entry_points.txt").write_text(text, "utf-8")
    return info


def others(*kept: str) -> str:
    """Installed plugins except core's own and those kept, as a list to disable."""
    found = {plugin.distribution for plugin in registry.entry_points()}
    return ",".join(sorted(found - {"inference-models-core", *kept}))


def only(patch: pytest.MonkeyPatch, *kept: str) -> None:
    """Play that core's own plugins and these are all that is installed by now."""
    found, hidden = registry.entry_points, set(others(*kept).split(","))
    patch.setattr(
        registry,
        "entry_points",
        lambda: [plugin for plugin in found() if plugin.distribution not in hidden],
    )
    registry.refresh()


def python(code: str, *paths: Path, **environment: str):
    """Run code in a new interpreter that finds modules in `paths`; its output."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON")
    }
    variables["INFERENCE_MODELS_DISABLED_PLUGINS"] = others()
    variables["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-c", dedent(code)]
    return subprocess.run(
        command,
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def output(code: str, *paths: Path, **environment: str) -> str:
    """What the code prints, once it ends well."""
    ended = python(code, *paths, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
