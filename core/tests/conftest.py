"""A clean environment for each test, and a third-party distribution to load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

from inference_models import registry

from .distributions import install, only

HERE = Path(__file__).parent

# A slow machine is no reason to fail.
hypothesis.settings.register_profile("core", deadline=None)
hypothesis.settings.load_profile("core")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """Nobody's settings, a cache that ends with the test, and nobody asked abroad."""
    ours = ("INFERENCE_MODELS_", "ROBOFLOW_", "SECURE_GATEWAY", "LICENSE_SERVER")
    for name in [n for n in os.environ if n.startswith(ours)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROBOFLOW_API_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def acme_site(tmp_path_factory):
    """A folder in which the distribution acme-vision is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(HERE / "acme_vision.py", site)
    (site / "acme_weights.json").write_text('{"gain": [9, 9, 9]}', "utf-8")
    install(site, "acme-vision", {"acme": "acme_vision"})
    return site


@pytest.fixture
def acme(acme_site, monkeypatch):
    """The module of acme-vision, which is the only plugin beside core's own."""
    monkeypatch.syspath_prepend(acme_site)
    only(monkeypatch, "acme-vision")
    import acme_vision

    acme_vision.batches.clear()
    yield acme_vision
    registry.refresh()
