"""Packages of Roboflow, run by the packs: as the same weights in a local folder."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import attrs
import numpy as np
import onnx
import pytest
import torch
from core.tests.roboflow_server import KEY, RoboflowServer, package
from onnx import TensorProto, helper, numpy_helper
from plugins.florence2.tests.florence_folders import write_adapter, write_florence

from inference_models import (
    AutoModel,
    InvalidCard,
    InvalidWeights,
    NoBackend,
    hardware,
)
from inference_models_resnet.network import ResNet

from .cards import write_florence2_cards as write_cards
from .checkpoints import rfdetr_state, save_checkpoint

NAMES = ["bolt", "nut", "washer", "screw", "rivet", "pin", "nail"]
NORMALIZATION = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]
TORCH = {"type": "torch-model-package-v1", "backendType": "torch"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    with RoboflowServer() as running:
        monkeypatch.setenv("ROBOFLOW_API_HOST", running.host)
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
        yield running


def side_files(size, names, normalization=NORMALIZATION, config=None, **network):
    """The files that lie beside the weights of every package."""
    network_input = {
        "training_input_size": {"height": size, "width": size},
        "dataset_version_resize_dimensions": None,
        "color_mode": "rgb",
        "resize_mode": "stretch",
        "input_channels": 3,
        "scaling_factor": 255,
        "normalization": normalization,
    }
    data = {"network_input": network_input | network} | (config or {})
    return {
        "class_names.txt": "".join(f"{name}\n" for name in names).encode(),
        "inference_config.json": json.dumps(data).encode(),
    }


def load(**parameters):
    return AutoModel.from_pretrained("my-project/3", api_key=KEY, **parameters)


def local(folder: Path, weights: Path, preprocessing, **fields):
    """The same weights, from a folder with a card."""
    folder.mkdir()
    shutil.copy(weights, folder)
    form = "onnx" if weights.suffix == ".onnx" else "torch"
    artifact = {"format": form, "graphs": {"main": weights.name}}
    normal = {"mean": NORMALIZATION[0], "std": NORMALIZATION[1]}
    config = {"preprocessing": normal | preprocessing} | fields.pop("config", {})
    card = {"id": "mine", "artifacts": [artifact], "config": config} | fields
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return AutoModel.from_pretrained(folder)


# RF-DETR


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A checkpoint of eight columns, the last of which is no class."""
    path = tmp_path_factory.mktemp("rfdetr") / "weights.pth"
    return save_checkpoint(path, rfdetr_state("nano", 8))


def serve_detector(server, checkpoint, names=NAMES, side=384, beside=None, **fields):
    contents = {"weights.pth": checkpoint.read_bytes(), **side_files(side, names)}
    contents |= beside or {}
    usual = {"modelVariant": "rfdetr-nano", "taskType": "object-detection"}
    server.adds(
        "ws/my-project/3",
        package(files=contents, manifest=TORCH),
        contents=contents,
        aliases=("my-project/3",),
        modelArchitecture="rfdetr",
        **{**usual, **fields},
    )


def test_an_rfdetr_package_gives_what_its_folder_gives(
    server, detector, photos, tmp_path
):
    serve_detector(server, detector)
    model = load()
    expected = local(
        tmp_path / "local",
        detector,
        {"size": [384, 384]},
        architecture="rfdetr",
        task="object-detection",
        labels=[*NAMES, None],
        config={"size": "nano"},
    )
    image = photos["coffee"]
    (found,), (wanted,) = model(image, confidence=0), expected(image, confidence=0)

    assert model.class_names == [*NAMES, ""]
    assert (model.backend, model.task) == ("torch", "object-detection")
    np.testing.assert_array_equal(found.xyxy, wanted.xyxy)
    np.testing.assert_array_equal(found.class_id, wanted.class_id)
    np.testing.assert_array_equal(found.confidence, wanted.confidence)


def test_recommended_confidences_decide_for_each_class(server, detector, photos):
    recommended = {"confidence": 1.0, "perClassConfidence": {"nut": 0.0}}
    serve_detector(server, detector, recommendedParameters=recommended)
    (found,) = load()(photos["coffee"], confidence="best")

    assert len(found) > 0
    assert set(found.names) == {"nut"}


def test_a_package_with_names_too_many_is_refused(server, detector):
    serve_detector(server, detector, names=[*NAMES, "bracket", "plate"])
    with pytest.raises(InvalidWeights, match="names 9 classes, and its network has 8"):
        load()


def test_a_package_of_another_task_is_refused(server, detector):
    serve_detector(server, detector, taskType="depth-estimation")
    with pytest.raises(InvalidCard, match="'rfdetr' is for object-detection, inst"):
        load()


def test_weights_without_masks_are_not_taken_for_others(server, detector):
    serve_detector(server, detector, taskType="instance-segmentation")
    with pytest.raises(InvalidWeights, match="lacks segmentation_head"):
        load()


def test_a_package_with_masks_gives_instances(server, photos, tmp_path):
    weights = save_checkpoint(tmp_path / "weights.pth", rfdetr_state("seg-nano", 8))
    named = {"modelVariant": "rfdetr-seg-nano", "taskType": "instance-segmentation"}
    serve_detector(server, weights, side=312, **named)
    model = load()
    (found,) = model(photos["coffee"], confidence=0)

    assert model.task == "instance-segmentation"
    assert len(found) == 100
    assert found.masks.shape == (100, *photos["coffee"].shape[:2])


def test_a_package_with_points_gives_key_points_and_their_names(
    server, photos, tmp_path
):
    state = rfdetr_state("keypoint-preview")
    weights = save_checkpoint(tmp_path / "weights.pth", state)
    points = {str(number): f"point {number}" for number in range(17)}
    person = {
        "object_class_id": 1,
        "keypoints": points,
        "edges": [{"from": 3, "to": 4}],
    }
    serve_detector(
        server,
        weights,
        names=["background", "person"],
        side=576,
        beside={"keypoints_metadata.json": json.dumps([person]).encode()},
        modelVariant="rfdetr-keypoint-preview",
        taskType="keypoint-detection",
    )
    model = load()
    (found,) = model(photos["coffee"], confidence=0, key_points_threshold=0)

    assert model.class_names == ["", "person"]
    assert model.key_points_classes == [[], list(points.values())]
    assert model.skeletons == [[], [(3, 4)]]
    assert set(found.names) == {"person"}
    assert found.xy.shape == (100, 17, 2)
    assert (found.confidence > 0).all()


# ResNet


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("resnet") / "weights.pth"
    torch.save(dict(ResNet(18, 3).state_dict()), path)
    return path


def serve_classifier(server, contents, manifest, **fields):
    server.adds(
        "ws/my-project/3",
        package(files=contents, manifest=manifest),
        contents=contents,
        aliases=("my-project/3",),
        modelArchitecture="resnet",
        taskType="classification",
        **fields,
    )


CLASSES = ["cat", "dog", "bird"]


def expected_of(folder, weights):
    preprocessing = {"size": [64, 64], "antialias": False}
    facts = {"architecture": "resnet", "task": "classification", "labels": CLASSES}
    return local(folder, weights, preprocessing, config={"depth": 18}, **facts)


def test_a_resnet_package_gives_what_its_folder_gives(
    server, classifier, photos, tmp_path
):
    initialization = {"num_classes": 3, "model_name": "resnet18"}
    config = {
        "model_initialization": initialization,
        "post_processing": {"type": "softmax", "fused": False},
    }
    contents = {"weights.pth": classifier.read_bytes()}
    contents |= side_files(64, CLASSES, config=config)
    serve_classifier(server, contents, TORCH)
    expected = expected_of(tmp_path / "local", classifier)
    image = photos["chelsea"]

    found = load()(image)
    np.testing.assert_array_equal(found.confidence, expected(image).confidence)


def test_a_package_is_derived_and_then_loads_offline(
    server, classifier, photos, monkeypatch
):
    contents = {"weights.pth": classifier.read_bytes(), **side_files(64, CLASSES)}
    serve_classifier(server, contents, TORCH)
    expected = load(backend="torch")(photos["chelsea"])
    load(backend="onnx")
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    server.requests.clear()
    model = load(backend="onnx")
    found = model(photos["chelsea"])

    assert server.requests == []
    assert model.class_names == CLASSES
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)


def test_a_package_of_a_sigmoid_is_a_model_of_several_labels(
    server, classifier, photos
):
    config = {"post_processing": {"type": "sigmoid", "fused": False}}
    contents = {"weights.pth": classifier.read_bytes()}
    contents |= side_files(64, CLASSES, config=config)
    serve_classifier(server, contents, TORCH)
    model = load()

    assert model.task == "multi-label-classification"
    assert len(model(photos["chelsea"])) == 1


def scores_of_means(path, fused):
    """A classifier of any image, whose tensors have names of their own."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["m"], axes=[2, 3], keepdims=0)]
    last = "Softmax" if fused else "Identity"
    nodes.append(helper.make_node(last, ["m"], ["output_0"]))
    graph = helper.make_graph(
        nodes,
        "means",
        [_tensor("images", ["batch", 3, 64, 64])],
        [_tensor("output_0", ["batch", 3])],
    )
    return _saved(graph, path)


def _tensor(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _saved(graph, path):
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.mark.parametrize("fused", [False, True])
def test_an_onnx_package_runs_whatever_its_tensors_are_called(
    fused, server, photos, tmp_path
):
    path = scores_of_means(tmp_path / "weights.onnx", fused)
    config = {"post_processing": {"type": "softmax", "fused": fused}}
    contents = {"weights.onnx": path.read_bytes()}
    contents |= side_files(64, CLASSES, normalization=None, config=config)
    serve_classifier(server, contents, {})
    found = np.asarray(load()(photos["chelsea"]).confidence)

    means = photos["chelsea"].mean(axis=(0, 1))[::-1] / 255
    expected = np.exp(means) / np.exp(means).sum()
    np.testing.assert_allclose(found[0], expected, atol=5e-3)


# Folders of transformers


HF = {"type": "hf-model-package-v1", "backendType": "hf", "dynamicBatchSize": None}
ASKED = {"prompt": ["<CAPTION>", "<OD>"], "max_new_tokens": 9}


@pytest.fixture(scope="module")
def florence(tmp_path_factory):
    return write_florence(tmp_path_factory.mktemp("florence2") / "tiny")


@pytest.fixture(scope="module")
def adapter(florence, tmp_path_factory):
    """A LoRA of the folder's model."""
    return write_adapter(florence, tmp_path_factory.mktemp("adapter"))


def contents_of(folder, prefix=""):
    return {prefix + path.name: path.read_bytes() for path in folder.iterdir()}


def serve_answers(server, contents, **fields):
    server.adds(
        "ws/my-project/3",
        package(files=contents, manifest=HF),
        contents=contents,
        aliases=("my-project/3",),
        **{"modelArchitecture": "florence-2", "taskType": "vlm"} | fields,
    )


@pytest.mark.parametrize(
    "backend", ["hf", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_a_florence2_package_answers_as_its_folder_does(
    backend, server, florence, photos
):
    serve_answers(server, contents_of(florence), modelVariant="florence-2-base")
    expected = AutoModel.from_pretrained(florence, backend="hf")
    model = load(backend=backend)

    assert (model.task, model.backend) == ("vision-language", backend)
    assert model(photos["coffee"], **ASKED) == expected(photos["coffee"], **ASKED)
    (found,) = model.segment_phrase(photos["coffee"], "a cup", max_new_tokens=5)
    assert found.masks.shape[1:] == photos["coffee"].shape[:2]


@pytest.mark.parametrize(
    "named",
    [
        pytest.param("microsoft/Florence-2-base", marks=pytest.mark.slow),
        "/somewhere/base",
    ],
)
def test_an_adapters_package_has_its_base_in_it(
    named, server, florence, adapter, photos, tmp_path, monkeypatch
):
    contents = contents_of(florence, "base/") | contents_of(adapter)
    config = json.loads(contents["adapter_config.json"])
    config["base_model_name_or_path"] = named
    contents["adapter_config.json"] = json.dumps(config).encode()
    dependency = {"name": "base_model", "modelId": "florence-2-base"}
    dependency["type"] = "model-dependency-v1"
    serve_answers(server, contents, modelDependencies=[dependency])
    model = load()
    asked = {query["modelId"][0] for query in server.asked}
    write_cards(florence, adapter, tmp_path)
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path))
    expected = AutoModel.from_pretrained("acme-tuned")
    base = AutoModel.from_pretrained("acme-base", backend="hf")
    image = photos["coffee"]

    assert asked == {"my-project/3", "ws/my-project/3"}
    assert model(image, **ASKED) == expected(image, **ASKED)
    assert model(image, **ASKED) != base(image, **ASKED)


def test_an_adapters_package_says_what_it_needs(server, adapter, florence, monkeypatch):
    serve_answers(server, contents_of(florence, "base/") | contents_of(adapter))
    monkeypatch.setattr("inference_models_hf.backend.find_spec", without("peft"))
    with pytest.raises(NoBackend, match="it is an adapter, which needs peft; pip"):
        load()

    assert server.fetched == []


def without(missing):
    """`find_spec` where one module is not installed."""
    return lambda name: None if name == missing else find_spec(name)


def test_an_adapters_package_loads_offline(
    server, florence, adapter, photos, monkeypatch
):
    serve_answers(server, contents_of(florence, "base/") | contents_of(adapter))
    expected = load()(photos["coffee"], **ASKED)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    server.requests.clear()

    assert load()(photos["coffee"], **ASKED) == expected
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", {"auto_map": {"AutoModel": "code.Model"}}, "code of its own"),
        ("preprocessor_config.json", None, "has no preprocessor_config"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "base/"])
def test_a_package_that_a_folder_of_its_kind_would_not_be_is_refused(
    prefix, name, change, words, server, florence, adapter
):
    contents = contents_of(florence, prefix)
    contents |= contents_of(adapter) if prefix else {}
    content = contents.pop(prefix + name)
    if change is not None:
        changed = json.dumps(json.loads(content) | change)
        contents[prefix + name] = changed.encode()
    serve_answers(server, contents)
    with pytest.raises((InvalidWeights, NoBackend), match=words):
        load()


# Geometry


SIDE = 64


def around_what_is_bright(path, batch):
    """A detector that draws one box around bright pixels; its export's names."""
    constants = {
        "half": np.float32(0.5),
        "side": np.float32(SIDE),
        "back": np.arange(SIDE - 1, -1, -1, dtype=np.int64),
        "shape": np.array([batch, 1, 1], np.int64),
        "logits": np.tile(np.float32([2, 4, -9]), (batch, 1, 1)),
    }
    nodes = []
    for axis, others in (("x", [1, 2]), ("y", [1, 3])):
        nodes += _edges(axis, others)
    nodes += [
        helper.make_node("Concat", ["x_c", "y_c", "x_s", "y_s"], ["dets"], axis=2),
        helper.make_node("Identity", ["logits"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [_tensor("input", [batch, 3, SIDE, SIDE])],
        [_tensor("dets", [batch, 1, 4]), _tensor("labels", [batch, 1, 3])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return _saved(graph, path)


def _edges(axis, others):
    """Center and size along one axis, as shares of the input."""
    make = helper.make_node
    steps = [
        make("ReduceMax", ["input"], [f"{axis}_max"], axes=others, keepdims=0),
        make("Greater", [f"{axis}_max", "half"], [f"{axis}_on"]),
        make("Cast", [f"{axis}_on"], [f"{axis}_f"], to=TensorProto.FLOAT),
        make("Gather", [f"{axis}_f", "back"], [f"{axis}_b"], axis=1),
    ]
    for name in ("f", "b"):
        first, number = f"{axis}_{name}_first", f"{axis}_{name}_number"
        steps += [
            make("ArgMax", [f"{axis}_{name}"], [first], axis=1, keepdims=1),
            make("Cast", [first], [f"{number}_flat"], to=TensorProto.FLOAT),
            make("Reshape", [f"{number}_flat", "shape"], [f"{number}_px"]),
            make("Div", [f"{number}_px", "side"], [number]),
        ]
    start, end = f"{axis}_f_number", f"{axis}_b_number"
    return [
        *steps,
        make("Add", [start, end], [f"{axis}_sum"]),
        make("Div", ["side", "side"], [f"{axis}_one"]),
        make("Sub", [f"{axis}_one", f"{axis}_sum"], [f"{axis}_s"]),
        make("Sub", [start, end], [f"{axis}_diff"]),
        make("Add", [f"{axis}_diff", f"{axis}_one"], [f"{axis}_twice"]),
        make("Mul", [f"{axis}_twice", "half"], [f"{axis}_c"]),
    ]


@pytest.mark.parametrize("dataset", [(48, 80), (64, 64), None])
def test_crop_letterbox_removed_classes_and_a_fixed_batch_keep_pixels(
    dataset, server, tmp_path
):
    batch = 4
    config = {
        "image_pre_processing": {
            "static-crop": {
                "enabled": True,
                "x_min": 10,
                "x_max": 90,
                "y_min": 20,
                "y_max": 100,
            }
        },
        "class_names_operations": [{"type": "class_name_removal", "class_name": "nut"}],
    }
    network = {"resize_mode": "letterbox", "padding_value": 0}
    if dataset is not None:
        size = {"height": dataset[0], "width": dataset[1]}
        network["dataset_version_resize_dimensions"] = size
    path = around_what_is_bright(tmp_path / "weights.onnx", batch)
    contents = {"weights.onnx": path.read_bytes()}
    contents |= side_files(SIDE, NAMES[:3], None, config, **network)
    manifest = {"dynamicBatchSize": False, "staticBatchSize": batch}
    server.adds(
        "ws/my-project/3",
        package(files=contents, manifest=manifest),
        contents=contents,
        aliases=("my-project/3",),
        modelArchitecture="rfdetr",
        taskType="object-detection",
    )
    model = load()
    boxes = [(150, 120, 350, 240), (200, 100, 260, 300), (60, 200, 300, 260)]
    images = [picture(300 + 60 * n, 400 + 50 * n, box) for n, box in enumerate(boxes)]
    found = model(images)

    assert model.batch_size == batch
    assert model.class_names == ["bolt", "", "washer"]
    for box, each in zip(boxes, found, strict=True):
        assert each.names == ["bolt"]
        np.testing.assert_allclose(each.xyxy[0], box, atol=400 / SIDE)


def picture(height, width, box):
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


# What cannot run here


def test_an_engine_alone_says_what_is_missing(server):
    contents = {"engine.plan": b"native code"} | side_files(64, CLASSES)
    manifest = {"type": "trt-model-package-v1", "backendType": "trt"}
    batch = {"dynamicBatchSize": False, "staticBatchSize": 1}
    serve_classifier(server, contents, manifest | batch)
    with pytest.raises(
        NoBackend, match=r"'engine\.plan' is an engine.*allow_untrusted"
    ):
        load()
    with pytest.raises(NoBackend, match=r"trt: (no NVIDIA GPU|TensorRT is not)"):
        load(allow_untrusted_packages=True)

    assert server.fetched == []


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"cudaDeviceCC": "8.6"}, r"is for compute capability 8\.6, and NVIDIA L4 has"),
        ({"cudaDeviceType": "tesla-t4"}, "is for tesla-t4, and the GPU here is NVID"),
        ({"trtVersion": "10.3.0.17"}, r"is for TensorRT 10\.3\.0\.17, and Tens"),
    ],
    ids=str,
)
def test_an_engine_for_another_machine_is_not_fetched(
    server, monkeypatch, facts, reason
):
    gpu = hardware.Gpu("NVIDIA L4", (8, 9), 2**34)
    here = attrs.evolve(hardware.detect(), gpus=(gpu,), cuda=(13, 0))
    monkeypatch.setattr(hardware, "detect", lambda: here)
    contents = {"engine.plan": b"native code"} | side_files(64, CLASSES)
    manifest = {"type": "trt-model-package-v1", "backendType": "trt", **facts}
    batch = {"dynamicBatchSize": False, "staticBatchSize": 1}
    serve_classifier(server, contents, manifest | batch)
    with pytest.raises(NoBackend, match=reason):
        load(allow_untrusted_packages=True)

    assert server.fetched == []
