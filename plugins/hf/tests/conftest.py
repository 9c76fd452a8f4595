"""Nobody's settings, a Hub on this machine, and a third party's plugin to load with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from core.tests.distributions import install, only

from inference_models import registry

from .hub_server import HubServer

HERE = Path(__file__).parent
OURS = ("INFERENCE_MODELS_", "ROBOFLOW_", "HF_", "HUGGING", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    """No token of whoever runs this, a cache that ends with the test, nobody abroad."""
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("ROBOFLOW_API_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(monkeypatch):
    """A Hub without models; nothing waits between tries."""
    from inference_models.download import ask, fetch

    with HubServer() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        for module in (ask, fetch):
            monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
        yield running


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder in which the distribution tiny-pack is installed."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(HERE / "tiny_pack.py", folder)
    install(folder, "tiny-pack", {"tiny": "tiny_pack"})
    return folder


@pytest.fixture
def tiny(site, monkeypatch):
    """The module of tiny-pack, the only plugin beside core's own and the Hub's."""
    monkeypatch.syspath_prepend(site)
    only(monkeypatch, "tiny-pack", "inference-models-hf")
    import tiny_pack

    yield tiny_pack
    registry.refresh()
