"""What README and docs/ show runs as it stands there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import supervision as sv
import torch
from core.tests.roboflow_server import KEY, RoboflowServer, package
from PIL import Image
from plugins.hf.tests.hub_server import HubServer
from safetensors.torch import save, save_file

import inference_models
from inference_models import (
    Artifact,
    AutoModel,
    Bundle,
    ModelCard,
    Operations,
    Preprocessing,
)
from inference_models.hardware import Gpu, Hardware
from inference_models.negotiation.find import elsewhere
from inference_models.preprocess import place
from inference_models.registry import installed
from inference_models.skeletons import Skeleton, skeletons_of
from inference_models.testing import plugged
from inference_models_onnx import OnnxBackend
from inference_models_resnet.network import ResNet
from inference_models_torch import TorchBackend
from inference_models_trt.installed import Installed
from inference_models_trt.needs import refuse_needs

from . import reference
from .checkpoints import rfdetr_cards
from .test_roboflow import side_files

ROOT = Path(__file__).parents[1]
_GPU = Gpu("NVIDIA L4", (8, 9), 2**34)
_L4 = (Installed("tensorrt", "10.13.0.35", 12), _GPU, Hardware(2, (_GPU,), (12, 4)))


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    text = (ROOT / document).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, photos):
    (tmp_path / "path/to").mkdir(parents=True)
    picture = Image.fromarray(photos["coffee"][..., ::-1])
    picture.save(tmp_path / "path/to/image.jpg", quality=95)
    return tmp_path


def from_elsewhere():
    """README's block with models of Roboflow, of the Hub and of a URL."""
    (block,) = [b for b in blocks("README.md", "python") if "hf://" in b]
    return block


def test_readme_runs_from_top_to_bottom(run, folder, overview_cards):
    here = [b for b in blocks("README.md", "python") if b != from_elsewhere()]
    code = "\n".join(here)

    shown = run(code, folder, INFERENCE_MODELS_CARDS=overview_cards)

    assert "torch cpu" in shown
    assert "resnet18: classification, resnet" in shown


@pytest.mark.parametrize(
    "page", ["core", *(f"plugins/{n}" for n in ("onnx", "resnet", "florence2"))]
)
def test_page_of_a_part_runs(page, run, folder, overview_cards):
    code = "\n".join(blocks(f"{page}/README.md", "python"))

    run(code, folder, INFERENCE_MODELS_CARDS=overview_cards)


def test_page_on_rfdetr_runs(run, folder, overview_cards, photos, tmp_path_factory):
    further = [
        str(rfdetr_cards(tmp_path_factory.mktemp(size), size, photos["coffee"]))
        for size in ("seg-nano", "keypoint-preview")
    ]
    cards = os.pathsep.join([overview_cards, *further])
    (folder / "output").mkdir()
    trained = Path(overview_cards.split(os.pathsep)[-1], "base.pth")
    shutil.copy(trained, folder / "output/checkpoint_best_total.pth")
    code = "\n".join(blocks("plugins/rfdetr/README.md", "python"))

    run(code, folder, INFERENCE_MODELS_CARDS=cards)


def test_recipes_run_from_top_to_bottom(run, folder, overview_cards, photos):
    video = folder / "path/to/video.mp4"
    frame = cv2.resize(photos["coffee"], (320, 240))
    with sv.VideoSink(str(video), sv.VideoInfo(320, 240, fps=5)) as sink:
        for _ in range(11):
            sink.write_frame(frame)
    asking = """
    import threading
    import urllib.error
    import urllib.request

    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with open("path/to/image.jpg", "rb") as file:
        with urllib.request.urlopen(address, file.read()) as answer:
            print(json.load(answer)["names"] == model("path/to/image.jpg")[0].names)
    try:
        urllib.request.urlopen(address, b"no image")
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
    """
    code = "\n".join(blocks("docs/getting-started/recipes.md", "python"))
    code = code.replace("8080", "0")

    shown = run(
        f"{code}\n{dedent(asking)}", folder, INFERENCE_MODELS_CARDS=overview_cards
    )

    assert shown.startswith("image.jpg [")
    assert "True\n400 " in shown
    video = sv.VideoInfo.from_video_path(str(folder / "annotated.mp4"))
    assert video.total_frames == 11


def test_what_was_compiled_runs_without_pytorch(run, folder, overview_cards):
    (code,) = blocks("docs/getting-started/installation.md", "python")
    places = {
        "INFERENCE_MODELS_CARDS": overview_cards,
        "INFERENCE_MODELS_CACHE": str(folder / "cache"),
    }
    compiling = "AutoModel.compile('resnet18', backend='onnx')"
    run(f"from inference_models import AutoModel\n{compiling}", folder, **places)
    (made,) = folder.glob("cache/derived/*/model.onnx")
    shutil.copy(made, folder)
    places["INFERENCE_MODELS_DISABLED_PLUGINS"] = "torch,hf"

    told = "print(model.backend, len(model('path/to/image.jpg')))\n"
    code = f"{code}{told}model = AutoModel.from_pretrained('resnet18')\n{told}"
    assert run(code, folder, **places) == "onnx 1\nonnx 1\n"


def test_page_on_florence2_runs(run, folder, overview_cards):
    code = "\n".join(blocks("docs/florence2.md", "python"))

    assert run(code, folder, INFERENCE_MODELS_CARDS=overview_cards)


def test_readme_loads_from_elsewhere(run, folder, overview_cards):
    torch.manual_seed(0)
    save_file(dict(ResNet(18, 3).state_dict()), folder / "weights.safetensors")
    weights = (folder / "weights.safetensors").read_bytes()
    others = save(dict(ResNet(18, 4).state_dict()))
    files = {"weights.safetensors": weights, **side_files(64, ["a", "b", "c"])}
    manifest = {"type": "torch-model-package-v1", "backendType": "torch"}
    with RoboflowServer() as roboflow, HubServer() as hub:
        packages = [package(files=files, manifest=manifest)]
        facts = {"contents": files, "modelArchitecture": "resnet"}
        roboflow.adds("my-project/3", *packages, **facts)
        hub.adds("org/name", {"weights.safetensors": others})
        url = roboflow.gives("/weights.safetensors", weights)
        code = f"from inference_models import AutoModel\n{from_elsewhere()}"
        code = code.replace("https://example.com/weights.onnx", url)
        code = code.replace('api_key="…"', f"api_key={KEY!r}")
        digest = hashlib.sha256(weights).hexdigest()
        code = code.replace('sha256="…"', f"sha256={digest!r}")
        addresses = {"ROBOFLOW_API_HOST": roboflow.host, "HF_ENDPOINT": hub.endpoint}
        cache = {"INFERENCE_MODELS_CACHE": str(folder / "cache")}
        run(code, folder, INFERENCE_MODELS_CARDS=overview_cards, **addresses, **cache)

    assert len(roboflow.fetched) == 3
    assert hub.fetched == ["weights.safetensors"]


def test_page_on_weights_loads_from_elsewhere(run, folder, overview_cards):
    torch.manual_seed(0)
    weights, others = (save(dict(ResNet(18, n).state_dict())) for n in (3, 4))
    code = "\n".join(blocks("docs/weights.md", "python"))
    code = code.replace("/onnx/model.onnx", "/weights.safetensors")
    code = code.replace("<64 hexadecimal digits>", hashlib.sha256(weights).hexdigest())
    with RoboflowServer() as server, HubServer() as hub:
        hub.adds("org/name", {"weights.safetensors": others})
        hub.repositories["org/name"].commit({"weights.safetensors": others}, "v1.0")
        url = server.gives("/weights.safetensors", weights)
        code = code.replace("https://example.com/weights.onnx", url)
        run(
            f"from inference_models import AutoModel\n{code}",
            folder,
            INFERENCE_MODELS_CARDS=overview_cards,
            INFERENCE_MODELS_CACHE=str(folder / "cache"),
            HF_ENDPOINT=hub.endpoint,
            ROBOFLOW_API_HOST=server.host,
        )

    assert set(hub.fetched) == {"weights.safetensors"}


def anchors(page: Path) -> set[str]:
    """What its headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "*/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    path = ROOT / page
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text("utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\((?!https?:)([^)\s#]*)#?([^)\s]*)\)", text)
    targets = [(path.parent / file if file else path, to) for file, to in links]

    assert [str(file) for file, _ in targets if not file.exists()] == []
    assert [to for file, to in targets if to and to not in anchors(file)] == []


def test_page_on_models_names_those_of_the_packs():
    page = (ROOT / "docs/models/index.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.+?`) \| `(.+?)` \| (.+?) \|", page, re.MULTILINE)
    listed = {
        name: (task, licence)
        for names, task, licence in rows
        for name in re.findall("`(.+?)`", names)
    }
    registry = installed()
    cards = [c for cls in registry.architectures.values() for c in cls.cards()]
    abroad = {n for n in elsewhere(registry) if not n.startswith("florence-2")}

    assert {card.id for card in cards} | abroad == set(listed)
    assert [c.id for c in cards if listed[c.id] != (c.task, c.license)] == []


def test_example_card_is_a_sound_card():
    text, *_ = blocks("docs/cards.md", "json")
    data = json.loads(text.replace("<64 hexadecimal digits>", "0" * 64))

    card = ModelCard.from_json(data)

    assert card.class_names == ["bolt", "nut", ""]
    assert Preprocessing.from_config(card.config["preprocessing"]).size == (224, 224)


def test_card_of_an_engine_is_a_sound_card():
    (text,) = blocks("docs/tensorrt.md", "json")
    card = ModelCard.from_json(json.loads(text.replace("…", "0" * 64)))

    assert card.artifacts[0].batch == (1, 8, 16)
    assert refuse_needs(card.artifacts[0].needs, *_L4) is None


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")
def test_page_on_tensorrt_builds_for_a_gpu_elsewhere(run, folder, overview_cards):
    (code,) = blocks("docs/tensorrt.md", "python")
    elsewhere = code.replace('backend="trt", ', 'backend="trt", device="sm_89", ')

    assert elsewhere != code
    shown = run(
        elsewhere + "print(model.backend)\n",
        folder,
        INFERENCE_MODELS_CARDS=overview_cards,
        INFERENCE_MODELS_CACHE=str(folder / "cache"),
    )
    assert shown == "torch\n"
    assert len(list(folder.glob("cache/derived/*/engine.plan"))) == 1


def test_fields_that_the_page_on_cards_names_are_those_there_are():
    page = (ROOT / "docs/cards.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", page.partition("## Preprocessing")[2]))

    fields = {field.name for field in Preprocessing.__attrs_attrs__}
    assert fields - named <= {"dtype"}


def install(folder: Path, hook: str) -> Path:
    """A plugin of the page, with the metadata that pip would write."""
    (toml,) = blocks("docs/writing-a-plugin.md", "toml")
    (module,) = [m for m in blocks("docs/writing-a-plugin.md", "python") if hook in m]
    name = re.search(r'^name = "(.+)"', toml, re.MULTILINE)[1]
    entry_point = re.search(r'^(\w+) = "(acme\w+)"', toml, re.MULTILINE)
    info = folder / "site" / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        f"[inference_models]\n{entry_point[1]} = {entry_point[2]}\n"
    )
    (folder / "site" / f"{entry_point[2]}.py").write_text(module, "utf-8")
    return folder / "site"


def test_places_that_the_page_on_plugins_names_are_those_there_are():
    page = (ROOT / "docs/writing-a-plugin.md").read_text("utf-8")
    named = {n: int(v) for n, v in re.findall(r"`(\w+)`(?: has)? (\d+)", page)}
    plugins = installed()
    ranks = {name: cls.rank for name, cls in plugins.backends.items()}
    orders = {name: cls.order for name, cls in plugins.weights_providers.items()}

    assert named == {**orders, **ranks}


def write_mean_graph(path: Path, axes: Sequence[int] = (1, 2, 3)) -> None:
    """A graph that averages each image, or each of its channels."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = ["batch", 3, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0)],
        "brightness",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("mean", kind, shape[: 4 - len(axes)])],
        [helper.make_tensor("axes", onnx.TensorProto.INT64, [len(axes)], axes)],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_pack_of_the_page_on_plugins_works(run, tmp_path):
    site, cards = install(tmp_path, "def architectures"), tmp_path / "cards"
    cards.mkdir()
    (text,) = blocks("docs/writing-a-plugin.md", "json")
    (cards / "brightness.json").write_text(text, "utf-8")
    write_mean_graph(cards / "brightness.onnx")
    Image.fromarray(np.full((40, 50, 3), 204, np.uint8)).save(tmp_path / "light.png")

    shown = run(
        "from inference_models import AutoModel\n"
        "prediction = AutoModel.from_pretrained('brightness')('light.png')\n"
        "print(prediction, round(float(prediction.confidence[0]['bright']), 3))",
        tmp_path,
        PYTHONPATH=str(site),
        INFERENCE_MODELS_CARDS=str(cards),
    )

    assert shown == "<ClassificationPrediction 1: bright 0.80> 0.8\n"


def shown(word: str) -> dict[str, Any]:
    """What the one block of the page on plugins with this word defines."""
    page = blocks("docs/writing-a-plugin.md", "python")
    (code,) = [block for block in page if word in block]
    defined: dict[str, Any] = {"__name__": "acme"}
    exec(code, defined)
    return defined


class ShapesNet(torch.nn.Module):
    """What the page on plugins imports as a network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(5, 3))
        self.classify = torch.nn.Linear(3, classes)
        self.box = torch.nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries = self.queries + images.mean(dim=(2, 3))[:, None]
        masks = torch.einsum("bqc,bchw->bqhw", queries, images[:, :, ::4, ::4] - 0.5)
        return self.classify(queries), self.box(queries).sigmoid(), masks


def write_card(folder: Path, *facts: Any) -> None:
    data = ModelCard(*facts, {"preprocessing": {"size": [32, 32]}}).to_json()
    (folder / "card.json").write_text(json.dumps(data))


def test_network_of_the_page_on_plugins_runs_in_torch_and_onnx(tmp_path, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    network = SimpleNamespace(ShapesNet=ShapesNet)
    monkeypatch.setitem(sys.modules, "acme_shapes", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "acme_shapes.network", network)
    pack = shown("class Shapes(")["Shapes"]
    torch.manual_seed(0)
    save_file(ShapesNet(3).state_dict(), tmp_path / "shapes.safetensors")
    artifact = Artifact("torch", {"main": "shapes.safetensors"})
    task, labels = "instance-segmentation", ["bolt", None, "nut"]
    write_card(tmp_path, "shapes", pack.name, task, [artifact], labels)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)

    with plugged(pack, TorchBackend, OnnxBackend):
        models = [
            AutoModel.from_pretrained(tmp_path, backend=name)
            for name in ("torch", "onnx")
        ]
        found, same = (model(image, confidence=0.2)[0] for model in models)

    assert [model.backend for model in models] == ["torch", "onnx"]
    assert set(found.names) == set(same.names) == {"bolt", "nut"}
    assert found.masks.shape == (len(found), 40, 60)
    assert 0.1 < found.masks.mean() < 0.9
    np.testing.assert_allclose(found.xyxy, same.xyxy, atol=0.01)
    assert (found.masks != same.masks).mean() < 0.01


def test_key_points_of_the_page_on_plugins_are_in_pixels_of_the_image(tmp_path):
    pack = shown("class Fishes(")["Fishes"]
    config = {"preprocessing": {"size": [10, 10]}}
    task, artifact = "keypoint-detection", Artifact("onnx", {"main": "fishes.onnx"})
    card = ModelCard("fishes", pack.name, task, [artifact], ["fish"], config)
    outputs = {
        "boxes": np.array([[[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]]]),
        "scores": np.array([[0.9, 0.2]]),
        "points": np.array([[[[5, 5], [6, 5]], [[1, 1], [2, 2]]]]),
        "visible": np.array([[[0.75, 0.5], [0.5, 0.5]]]),
    }
    frame = place(Preprocessing(size=(10, 10)), 20, 40).frame

    made = pack(Bundle(card, artifact, tmp_path))
    (found,) = made.postprocess(outputs, [frame], made.Options(), Operations())

    assert repr(found) == "<KeyPoints 1: fish 0.90>"
    assert found.xyxy.tolist() == [[10, 5, 30, 15]]
    assert found.xy.tolist() == [[[20, 10], [24, 10]]]
    assert found.confidence.tolist() == [[0.75, 0.5]]


def test_key_points_of_the_page_on_cards_can_be_read():
    (config,) = [json.loads(b) for b in blocks("docs/cards.md", "json")[1:]]

    edges = ((0, 1), (0, 2))
    expected = [Skeleton(), Skeleton(("head", "tail", "fin"), edges)]
    assert skeletons_of(config, 2) == expected


def test_more_of_a_box_of_the_page_on_plugins_stays_with_it():
    oriented = shown("class Oriented(")["oriented"]
    frame = place(Preprocessing(size=(10, 10)), 20, 40).frame
    boxes = np.array([[0, 0, 5, 5], [1, 1, 3, 4]])

    found = oriented(boxes, np.float32([0.5, 0.9]), np.float32([1, 2]), frame, ["bolt"])

    assert found.angle.tolist() == [2, 1]
    assert found[1:].angle.tolist() == [1]
    assert found == found[:]
    assert found != found[::-1]
    assert repr(found) == "<Oriented 2: bolt 0.90, bolt 0.50>"


def test_embeddings_of_the_page_on_plugins_come_in_one_array(tmp_path):
    task = shown("class EmbeddingModel(")
    write_mean_graph(tmp_path / "mean.onnx", axes=[2, 3])
    artifact = Artifact("onnx", {"main": "mean.onnx"}, rename={"mean": "output"})
    write_card(tmp_path, "mean", "acme-embedder", "image-embedding", [artifact], ())
    images = [np.full((9, 9, 3), (5, grey, 90), np.uint8) for grey in range(1, 20)]

    with plugged(task["Embedder"], OnnxBackend):
        model = task["EmbeddingModel"].from_pretrained(tmp_path, batch_size=8)
        found = model(images)

    assert type(model) is task["EmbeddingModel"]
    assert found.shape == (19, 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert model.similarity(images, images[3:5])[3:5].argmax(axis=1).tolist() == [0, 1]


def test_backend_of_the_page_on_plugins_passes_its_tests(run, tmp_path):
    page = blocks("docs/writing-a-plugin.md", "python")
    for name, word in (("acme_npz", "def backends("), ("test_npz", "class TestNpz(")):
        (code,) = [block for block in page if word in block]
        (tmp_path / f"{name}.py").write_text(code, "utf-8")

    said = run("import pytest; pytest.main(['-q', 'test_npz.py'])", tmp_path)

    assert re.search(r"^\d+ passed, \d skipped", said, re.MULTILINE), said


def test_provider_of_the_page_on_plugins_works(run, tmp_path):
    site = install(tmp_path, "def weights_providers")
    torch.manual_seed(0)
    weights = save(dict(ResNet(18, 3).state_dict()))
    with RoboflowServer() as server:
        url = server.gives("/weights.safetensors", weights)
        digest = hashlib.sha256(weights).hexdigest()
        file = {"name": "weights.safetensors", "sources": [url], "sha256": digest}
        graphs = {"main": "weights.safetensors"}
        card = {
            "id": "acme/bolts",
            "architecture": "resnet",
            "task": "classification",
            "labels": ["bolt", "nut", "washer"],
            "config": {"depth": 18, "preprocessing": {"size": [32, 32]}},
            "artifacts": [{"format": "torch", "graphs": graphs, "files": [file]}],
        }
        listed = server.gives("/acme/bolts.json", json.dumps(card).encode())

        shown = run(
            "from inference_models import AutoModel\n"
            "print(AutoModel.from_pretrained('acme/bolts').card.labels)",
            tmp_path,
            PYTHONPATH=str(site),
            ACME_SHELF=listed.removesuffix("/acme/bolts.json"),
            INFERENCE_MODELS_CACHE=str(tmp_path / "cache"),
        )

    assert shown == "('bolt', 'nut', 'washer')\n"


def test_contributing_shows_a_pack_that_works(tmp_path):
    (code,) = blocks("CONTRIBUTING.md", "python")
    pack: dict[str, Any] = {}
    exec(code, pack)
    (tiny,) = pack["architectures"]()
    artifact = Artifact("onnx", {"main": "tiny.onnx"})
    card = ModelCard("tiny", tiny.name, "classification", [artifact], ["a", "b"])
    outputs = {"scores": np.array([[0.1, 0.9]], np.float32)}

    made = tiny(Bundle(card, artifact, tmp_path))
    (result,) = made.postprocess(outputs, [], None, Operations())
    assert result.confidence[0]["b"] == np.float32(0.9)


def test_the_reference_is_what_the_sources_say():
    # Compared as lists, of which pytest tells the first difference at once.
    written = reference.PAGE.read_text("utf-8").splitlines()

    assert written == reference.page().splitlines()


def test_the_reference_has_every_public_name():
    grouped = " ".join(reference.GROUPS.values()).split()

    assert sorted([*grouped, *reference.error_names()]) == inference_models.__all__
