"""Models of the Hub, run by packs and backends: as the same files in a local folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from plugins.hf.tests.hub_server import TOKEN, HubServer
from safetensors.torch import save_file
from transformers.utils import logging

from inference_models import AutoModel, InvalidOption, NoBackend
from inference_models_resnet.network import ResNet

from . import hf_folders
from .cards import resnet_card
from .hf_folders import CLASSIFIERS, enlivened, saved, spread_out

CLASSES = ["cat", "dog", "bird"]
TINY = {"depth": 18, "preprocessing": {"size": [64, 64]}}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
        yield running


def load(model_id="hf://org/resnet-tiny", **parameters):
    return AutoModel.from_pretrained(model_id, **parameters)


def contents(folder):
    """The files of a folder, by their paths in it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def same(found, expected, photo):
    ours, theirs = found(photo).confidence, expected(photo).confidence
    return np.array_equal(np.asarray(ours), np.asarray(theirs))


# ResNet, as a pack has it


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {name: tensor.clone() for name, tensor in ResNet(18, 3).state_dict().items()}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def carded(state, folder):
    """A folder with a card and a pickled state dict."""
    torch.save(state, folder / "weights.pth")
    card = resnet_card(folder / "weights.pth", labels=CLASSES, config=TINY)
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_a_repository_with_a_card_gives_what_its_folder_gives(hub, carded, photos):
    commit = hub.adds("org/resnet-tiny", contents(carded) | {"README.md": b"# Tiny"})
    model = load(revision=commit)

    assert (model.backend, model.class_names) == ("torch", CLASSES)
    assert same(model, load(carded), photos["chelsea"])
    assert hub.fetched == ["card.json", "weights.pth"]


def test_a_pickle_of_a_branch_is_not_loaded(hub, carded):
    hub.adds("org/resnet-tiny", contents(carded))
    with pytest.raises(NoBackend, match=r"is a pickle.* revision= with a full commit"):
        load()
    with pytest.raises(InvalidOption, match=r"is a pickle.* revision= with a full"):
        load("hf://org/resnet-tiny/weights.pth")

    assert hub.fetched == ["card.json"]


@pytest.mark.parametrize("path", ["", "/weights.safetensors"])
def test_a_file_of_tensors_gives_what_its_path_gives(hub, state, folder, photos, path):
    save_file(state, folder / "weights.safetensors")
    hub.adds("org/resnet-tiny", contents(folder) | {"weights.pth": b"another"})
    model = load(f"hf://org/resnet-tiny{path}")

    assert same(model, load(folder / "weights.safetensors"), photos["chelsea"])
    assert hub.fetched == ["weights.safetensors"]


def test_an_onnx_file_gives_what_it_was_exported_from_gives(
    hub, carded, photos, tmp_path, monkeypatch
):
    expected = load(carded, backend="onnx")
    (exported,) = (tmp_path / "cache/derived").rglob("*.onnx")
    card = json.loads((carded / "card.json").read_text("utf-8"))
    card["artifacts"] = [{"format": "onnx", "graphs": {"main": "onnx/model.onnx"}}]
    files = {"card.json": json.dumps(card).encode()}
    hub.adds("org/resnet-tiny", files | {"onnx/model.onnx": exported.read_bytes()})
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "other"))
    model = load()

    assert model.backend == "onnx"
    assert same(model, expected, photos["chelsea"])


def test_a_derived_model_gives_the_same_again_without_a_network(
    hub, state, folder, photos, monkeypatch
):
    save_file(state, folder / "weights.safetensors")
    hub.adds("org/resnet-tiny", contents(folder))
    expected = load(backend="onnx")
    hub.requests.clear()
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    model = load(backend="onnx")

    assert same(model, expected, photos["chelsea"])
    assert hub.requests == []


# Folders of transformers


@pytest.fixture(autouse=True)
def _quiet():
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def written(folder, maker, **settings):
    """A folder as transformers writes it, of random weights that tell images apart."""
    model, processor = maker()
    model = spread_out(enlivened(model), 96)
    saved(folder, model, processor)
    if settings:
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, **settings)
    return folder


NEEDED = ["config.json", "model.safetensors", "preprocessor_config.json"]
NEEDLESS = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "README.md": b"#"}


@pytest.mark.parametrize(
    ("maker", "backend", "architecture"),
    [
        (hf_folders.resnet, "torch", "resnet"),
        (CLASSIFIERS["vit"], "hf", "hf-classifier"),
    ],
)
def test_a_folder_of_transformers_gives_what_it_gives_here(
    hub, folder, photos, maker, backend, architecture
):
    written(folder, maker)
    hub.adds("org/model", contents(folder) | NEEDLESS)
    model, expected = load("org/model"), load(folder)

    assert model.card.architecture == architecture
    assert model.backend == backend
    assert same(model, expected, photos["chelsea"])
    assert sorted(hub.fetched) == NEEDED


def test_a_folder_in_shards_gives_what_it_gives_here(hub, folder, photos):
    written(folder, CLASSIFIERS["vit"], max_shard_size="20KB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    hub.adds("org/model", contents(folder) | NEEDLESS)
    model = load("org/model")

    assert len(shards) > 1
    assert set(shards) < set(hub.fetched)
    assert set(hub.fetched) == set(contents(folder)) - {"generation_config.json"}
    assert same(model, load(folder), photos["chelsea"])


def test_a_gated_folder_is_explained_without_its_weights(hub, folder):
    written(folder, CLASSIFIERS["vit"])
    hub.adds("org/model", contents(folder), gated="auto")
    hub.accepted.add("org/model")
    explained = str(AutoModel.explain("org/model"))

    assert "hf-classifier" in explained
    assert "model.safetensors" not in hub.fetched
