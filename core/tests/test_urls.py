"""Models by URL: fetched once, held to their hash, and claimed as a local file is."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from inference_models import (
    AutoModel,
    DownloadFailed,
    Facts,
    HashMismatch,
    InvalidOption,
    InvalidWeights,
    Offline,
    TensorSpec,
)
from inference_models.interfaces import Access
from inference_models.providers.urls import UrlProvider

from . import faulty_server as faulty
from .faulty_server import FaultyServer, ranged

CONTENT = b'{"gain": [1, 2, 3]}'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture
def server():
    with FaultyServer() as running:
        running.gives("/weights.onnx", ranged(CONTENT))
        running.gives("/weights.pth", ranged(CONTENT))
        running.gives("/other.onnx", ranged(b"nothing"))
        yield running


@pytest.fixture
def acme(acme, monkeypatch):
    """Its backend reads its files under any suffix."""

    def inspect(self, path):
        if b"gain" not in path.read_bytes():
            return None
        return Facts("acme", {"gain": TensorSpec("float32", (3,))})

    monkeypatch.setattr(acme.AcmeBackend, "inspect", inspect)
    return acme


def confidence(model_id, **parameters):
    return AutoModel.from_pretrained(model_id, **parameters)(IMAGE).confidence


@pytest.mark.parametrize(
    "address",
    [
        "/weights.onnx",
        f"/weights.onnx#sha256={SHA256}",
        f"/weights.pth#sha256={SHA256}",
    ],
)
def test_a_url_predicts_as_the_local_file_does(address, acme, server, tmp_path):
    local = tmp_path / "weights.onnx"
    local.write_bytes(CONTENT)

    assert np.array_equal(confidence(server.url(address)), confidence(local))


def test_the_card_names_the_url_and_the_hash(acme, server):
    url = server.url("/weights.onnx")
    card = AutoModel.from_pretrained(url).card
    (file,) = card.artifacts[0].files

    assert (card.id, file.sources, file.sha256) == (url, (url,), SHA256)


@pytest.mark.parametrize("fragment", ["", f"#sha256={SHA256.upper()}"])
def test_it_is_fetched_once_and_serves_offline(fragment, acme, server, monkeypatch):
    url = server.url("/weights.onnx") + fragment
    first = confidence(url)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert np.array_equal(confidence(url), first)
    assert len(server.requests) == 1


def test_a_cache_may_be_named_relative_to_the_working_directory(
    acme, server, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", "mine")
    confidence(server.url("/weights.onnx"))

    assert (tmp_path / "mine" / "blobs" / SHA256).is_file()


def test_offline_what_is_missing_is_named(acme, server, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline, match=r"'weights\.onnx' is not in the cache"):
        confidence(server.url("/weights.onnx"))


def test_a_file_that_is_not_of_the_hash_is_refused(acme, server):
    with pytest.raises(HashMismatch, match=f"instead of {SHA256[::-1]}"):
        confidence(server.url(f"/weights.onnx#sha256={SHA256[::-1]}"))


def test_what_came_first_is_held_to(acme, server, tmp_path):
    url = server.url("/weights.onnx")
    confidence(url)
    for blob in (tmp_path / "cache" / "blobs").iterdir():
        blob.unlink()
    for bundle in (tmp_path / "cache" / "bundles").glob("*.json"):
        bundle.unlink()
    server.gives("/weights.onnx", ranged(b'{"gain": [6, 6, 6]}'))

    with pytest.raises(HashMismatch, match=f"instead of {SHA256}"):
        confidence(url)


def test_a_model_of_a_url_is_pickled(acme, server):
    model = AutoModel.from_pretrained(server.url("/weights.onnx"))
    again = pickle.loads(pickle.dumps(model))

    assert np.array_equal(again(IMAGE).confidence, model(IMAGE).confidence)


def test_it_can_be_said_what_the_file_is(acme, server):
    url = server.url("/weights.onnx")

    assert confidence(url, model_type="acme-colors").shape == (1, 3)
    with pytest.raises(InvalidOption, match="model_type 'nothing' is neither"):
        confidence(url, model_type="nothing")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://host.example/weights.pth", "is a pickle.*sha256= of a file"),
        ("https://host.example/weights.PT", "is a pickle"),
        ("https://host.example/weights.onnx?token=1", "it has a user or a query"),
        ("https://me:pass@host.example/weights.onnx", "it has a user or a query"),
        ("https://host.example/weights.onnx#sha256=12", "is not sha256=<64"),
        ("https://host.example/weights.onnx#md5=12", "is not sha256=<64"),
        ("https://host.example/weights.zip", "it names no file of weights"),
        ("https://host.example/", "it names no file of weights"),
        ("HTTPS://host.example/weights.zip", "it names no file of weights"),
    ],
)
def test_a_url_that_cannot_be_trusted_is_refused_with_what_to_do(acme, url, words):
    with pytest.raises(InvalidOption, match=words) as caught:
        AutoModel.from_pretrained(url)

    assert "download the file and give its path" in str(caught.value)
    assert "token" not in str(caught.value)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.acme", "weights.ACME"])
def test_a_backend_adds_suffixes_of_weights(acme, server, monkeypatch, name):
    monkeypatch.setattr(acme.AcmeBackend, "suffixes", (".acme",))
    server.gives(f"/{name}", ranged(CONTENT))

    assert confidence(server.url(f"/{name}")).shape == (1, 3)


def test_suffixes_that_are_known_here_are_told(acme, monkeypatch):
    monkeypatch.setattr(acme.AcmeBackend, "suffixes", (".acme",))
    with pytest.raises(InvalidOption, match=r"\(\.acme, \.ckpt, \.onnx, "):
        AutoModel.from_pretrained("https://host.example/weights.zip")


def test_what_is_not_encrypted_is_refused_beyond_this_machine(acme):
    with pytest.raises(DownloadFailed, match=r"http://host\.example is not encrypted"):
        AutoModel.from_pretrained("http://host.example/weights.onnx")


def test_a_file_that_nobody_claims_is_told_as_a_local_one(acme, server):
    with pytest.raises(InvalidWeights, match=r"no installed backend .* reads"):
        AutoModel.from_pretrained(server.url("/other.onnx"))


def test_a_web_page_is_no_file_of_weights(acme, server):
    page = faulty.whole(b"<html>", Content_Type="text/html")
    with pytest.raises(DownloadFailed, match="ask for a login"):
        AutoModel.from_pretrained(server.gives("/page.onnx", page))


@pytest.mark.parametrize(
    "model_id", ["resnet18", "host/weights.onnx", "ftp://h/a.onnx"]
)
def test_other_ids_are_nothing_to_it(model_id):
    assert UrlProvider().find(model_id, Access()) is None
