"""Records of Zenodo, from the id to predictions, asked of a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest

pytest.importorskip("inference_models_zenodo")

from inference_models import (
    Access,
    Artifact,
    AutoModel,
    Backend,
    Facts,
    Forbidden,
    HashMismatch,
    InvalidCard,
    InvalidOption,
    LicenseNotAllowed,
    ModelNotFound,
    Offline,
    RateLimited,
    Session,
    TensorSpec,
    Unauthorized,
    host_array,
)
from inference_models.testing import (
    ToyArchitecture,
    WeightsProviderTests,
    plugged,
    toy_card,
)
from inference_models_zenodo import ZenodoProvider

from .zenodo_server import TOKEN, ZenodoServer

IMAGE = np.full((9, 12, 3), (200, 10, 10), np.uint8)


class Toy(ToyArchitecture):
    @classmethod
    def claims(cls, facts):
        return toy_card(Artifact(facts.format, {})) if "bias" in facts.tensors else None


class NpzSession(Session):
    inputs = {"input": TensorSpec("float32", ("batch", 3, 8, 8))}  # noqa: RUF012
    outputs = {"output": TensorSpec("float32", ("batch", 3))}  # noqa: RUF012

    def __init__(self, tensors):
        self.tensors = tensors

    def __call__(self, **inputs):
        means = host_array(inputs["input"]).mean(axis=(2, 3))
        return {"output": means * self.tensors["weight"] + self.tensors["bias"]}


class NpzBackend(Backend):
    name = "npz"
    formats = ("npz",)

    def devices(self):
        return ["cpu"]

    def open(self, bundle, architecture, plan):
        with np.load(bundle.path()) as tensors:
            return {"main": NpzSession(dict(tensors))}

    def inspect(self, path):
        if not path.read_bytes().startswith(b"PK"):
            return None
        with np.load(path) as file:
            return Facts("npz", {n: TensorSpec("float32", file[n].shape) for n in file})


def weights(**changes):
    file = io.BytesIO()
    np.savez(file, **{**ToyArchitecture.tensors(), **changes})
    return file.getvalue()


def card(**changes):
    artifact = Artifact("npz", {"main": "toy.npz"})
    return json.dumps({**toy_card(artifact).to_json(), **changes}).encode()


WEIGHTS, OTHER = weights(), weights(bias=np.float32([9, 0, 0]))


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    """Zenodo with one record of a card, and the only plugins there are."""
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROBOFLOW_API_HOST", "http://127.0.0.1:9")
    monkeypatch.delenv("INFERENCE_MODELS_OFFLINE", raising=False)
    with ZenodoServer() as running, plugged(ZenodoProvider, NpzBackend, Toy):
        monkeypatch.setenv("ZENODO_HOST", running.host)
        running.adds(12, {"card.json": card(), "toy.npz": WEIGHTS, "read me.md": b"#"})
        yield running


def load(model_id="zenodo://12", **parameters):
    return AutoModel.from_pretrained(model_id, **parameters)


class TestZenodo(WeightsProviderTests):
    provider = ZenodoProvider

    @pytest.fixture
    def model_id(self, server):
        server.restricted.add(12)
        return "12"

    @pytest.fixture
    def key(self):
        return TOKEN

    @pytest.fixture
    def down(self, monkeypatch):
        monkeypatch.setenv("ZENODO_HOST", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    "model_id",
    ["zenodo://12", "10.5281/zenodo.12", "zenodo://10.5281/zenodo.12"],
)
def test_a_record_with_a_card_loads_by_its_number_and_its_doi(model_id):
    model = load(model_id)

    assert (model.card.id, model.card.license) == ("zenodo://12", "cc-by-4.0")
    assert model(IMAGE).confidence.shape == (1, 3)


@pytest.mark.parametrize("model_id", ["zenodo://13", "zenodo://13/a/toy #1.onnx"])
def test_a_file_of_weights_alone_is_what_a_pack_claims(server, model_id):
    server.adds(13, {"a/toy #1.onnx": WEIGHTS, "data.csv": b"1"})
    model = load(model_id)

    assert model.card.id == "zenodo://13/a/toy #1.onnx"
    assert np.array_equal(model(IMAGE).confidence, load()(IMAGE).confidence)


def test_a_file_is_what_the_user_says_it_is_and_held_to_the_users_hash(server):
    server.adds(13, {"toy.onnx": WEIGHTS})

    assert load("zenodo://13/toy.onnx", model_type="toy").card.architecture == "toy"
    with pytest.raises(HashMismatch, match="instead of aaaa"):
        load("zenodo://13/toy.onnx", sha256="a" * 64)
    with pytest.raises(InvalidOption, match="model_type 'nothing' is neither"):
        load("zenodo://13/toy.onnx", model_type="nothing")


def test_of_several_files_of_weights_one_is_to_be_named(server):
    server.adds(13, {"a.onnx": WEIGHTS, "b.onnx": OTHER})
    with pytest.raises(InvalidCard, match=r"name one, such as zenodo://13/a\.onnx"):
        load("zenodo://13")

    assert load("zenodo://13/b.onnx")(IMAGE).confidence[0]["red"] > 0.9


def test_a_record_without_weights_tells_what_it_has(server):
    server.adds(13, {"paper.pdf": b"%PDF"})

    with pytest.raises(InvalidCard, match=r"no weights .* it has 'paper\.pdf'"):
        load("zenodo://13")


@pytest.mark.parametrize("model_id", ["0", "12a", "12/3", "x/12", "12/data.csv", "١٢"])
def test_what_is_no_id_of_zenodo_is_not_asked(server, model_id):
    assert ZenodoProvider().find(model_id, Access(alone=True)) is None
    assert server.requests == []


@pytest.mark.parametrize("model_id", ["12", "12/toy.onnx"])
def test_a_number_is_zenodos_where_zenodo_is_named(server, model_id):
    server.adds(12, {"toy.onnx": WEIGHTS})
    with pytest.raises(ModelNotFound):
        load(model_id)
    assert server.requests == []

    assert load(model_id, weights_provider="zenodo").card.id == "zenodo://12/toy.onnx"


def test_a_record_that_is_not_there_is_told(server):
    with pytest.raises(ModelNotFound, match=r"Zenodo has no record 99; http.*/99 may"):
        load("zenodo://99")
    server.faults = [410]
    with pytest.raises(ModelNotFound, match="no longer has record 12"):
        load()


def test_the_number_of_all_versions_leads_to_the_latest(server):
    server.concepts[11] = 12

    with pytest.raises(ModelNotFound, match="such as the latest, zenodo://12"):
        load("zenodo://11")


def test_a_restricted_record_takes_a_token_which_nobody_else_sees(server):
    server.restricted.add(12)
    with pytest.raises(Forbidden, match=r"\(access: restricted\).*api_key="):
        load()
    assert load(api_key=TOKEN)(IMAGE).confidence.shape == (1, 3)
    with pytest.raises(Forbidden):  # nor is it remembered for who has no token
        load()


def test_files_have_the_size_and_the_hash_that_zenodo_gives(server):
    (file,) = ZenodoProvider().find("12", Access(alone=True)).artifacts[0].files

    assert (file.name, file.size) == ("toy.npz", len(WEIGHTS))
    assert file.md5 == hashlib.md5(WEIGHTS).hexdigest()
    server.algorithm = "crc32"
    with pytest.raises(InvalidCard, match=r"record 12: files\[0\]: checksum is no md5"):
        ZenodoProvider().find("12/toy.onnx", Access(alone=True))


def test_a_record_without_its_number_is_no_answer(server):
    server.changes = {"id": None}

    with pytest.raises(InvalidCard, match="record 12: id is missing"):
        ZenodoProvider().find("12", Access(alone=True))


def test_a_file_that_cannot_be_is_named_with_its_record(server):
    server.adds(13, {"a:b": WEIGHTS})

    with pytest.raises(InvalidCard, match=r"record 13: files\[0\]: file name 'a:b'"):
        ZenodoProvider().find("13", Access(alone=True))


def test_a_file_with_another_md5_is_refused(server):
    server.damage["toy.npz"] = OTHER

    with pytest.raises(HashMismatch, match=r"'toy\.npz' has md5"):
        load()


def test_a_licence_that_is_not_allowed_keeps_weights_from_being_fetched(server):
    server.adds(13, {"toy.onnx": WEIGHTS}, license_id="mit-license")
    for model_id in ("zenodo://12", "zenodo://13"):
        with pytest.raises(LicenseNotAllowed):
            load(model_id, allow_licenses=["Apache-2.0"])
    fetched = [path for path, _ in server.requests if path.endswith("/content")]
    assert [path for path in fetched if "card.json" not in path] == []

    assert load(allow_licenses=["CC-BY-4.0"]).card.license == "cc-by-4.0"
    assert load("zenodo://13", allow_licenses=["MIT"]).card.license == "MIT"


def test_a_card_reads_nothing_but_its_record(server):
    artifact = {"format": "npz", "graphs": {"main": "a"}}
    for source in ("https://host.example/a", "file:///etc/passwd", "b"):
        artifact["files"] = [{"name": "a", "sources": [source]}]
        server.adds(13, {"card.json": card(artifacts=[artifact]), "a": WEIGHTS})
        with pytest.raises(InvalidCard, match="is no file beside the card"):
            load("zenodo://13")


def test_offline_what_was_loaded_before_loads_again(server, monkeypatch):
    expected = load()(IMAGE).confidence
    server.requests.clear()
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert np.array_equal(load()(IMAGE).confidence, expected)
    assert server.requests == []
    with pytest.raises(Offline, match="'13' was not loaded here before"):
        load("zenodo://13")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, Unauthorized, "wants a key, or another one; check api_key="),
        (403, Forbidden, "not with this key"),
        (429, RateLimited, "wants fewer requests"),
    ],
)
def test_a_refusal_is_told_and_what_was_loaded_before_stands(
    server, status, error, words, caplog
):
    server.faults = [status] * 3
    with pytest.raises(error, match=f"Zenodo was asked for record 12 and .*{words}"):
        load()
    server.faults.clear()
    load()
    server.faults = [status]

    assert load()(IMAGE).confidence.shape == (1, 3)
    assert "12 is loaded as it was known before" in caplog.text
