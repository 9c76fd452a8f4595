"""A model of a provider with a key, carried to where there is no key and no network."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference_models import AutoModel, Offline
from inference_models.download.answers import Answers, content_of, imported_name

from .roboflow_server import KEY, RoboflowServer, package

pytest.importorskip("typer")

NETWORK = {"training_input_size": {"height": 16, "width": 16}, "scaling_factor": 255}
FILES = {
    "weights.onnx": b'{"gain": [9, 9, 9]}',
    "class_names.txt": b"red\ngreen\nblue\n",
    "inference_config.json": json.dumps({"network_input": NETWORK}).encode(),
}
IMAGE = np.arange(324, dtype=np.uint8).reshape(9, 12, 3)


@pytest.fixture
def carried(acme, monkeypatch, tmp_path):
    """A model that was loaded with a key, exported, and imported on another machine."""
    from inference_models.cli import cache

    monkeypatch.setattr(acme.AcmeBackend, "formats", ("acme", "onnx"))
    with RoboflowServer() as server:
        monkeypatch.setenv("ROBOFLOW_API_HOST", server.host)
        monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
        server.adds("ws/project/3", package(files=FILES), contents=FILES)
        expected = AutoModel.from_pretrained("ws/project/3")(IMAGE)
        cache.export(tmp_path / "model.tar", ["ws/project/3"])
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline):
        AutoModel.from_pretrained("ws/project/3")
    cache.import_(tmp_path / "model.tar")
    return expected


def test_it_predicts_the_same_there(carried):
    found = AutoModel.from_pretrained("ws/project/3")(IMAGE)

    assert np.array_equal(carried.confidence, found.confidence)


def test_it_is_listed_by_its_id(carried, capsys):
    from inference_models.cli import cache

    AutoModel.from_pretrained("ws/project/3")
    cache.ls()

    assert "bundle   ws/project/3" in capsys.readouterr().out


def test_no_key_and_no_signed_address_is_carried(carried, tmp_path):
    content = (tmp_path / "model.tar").read_bytes()

    assert KEY.encode() not in content
    assert b"X-Signature" not in content


def test_an_answer_with_the_own_key_comes_before_what_was_carried(acme, tmp_path):
    answers = Answers("hub", "https://hub.example", "key", tmp_path)
    carried = tmp_path / "imported" / imported_name("hub", "net")
    carried.parent.mkdir()
    carried.write_bytes(content_of(acme.card()))

    assert answers.read("net") == acme.card()
    answers.write("net", own := acme.card(license="Apache-2.0"))
    assert answers.read("net") == own
    assert Answers("hub", "https://hub.example", "other", tmp_path).read("net") != own
    assert Answers("other", "https://hub.example", "key", tmp_path).read("net") is None
