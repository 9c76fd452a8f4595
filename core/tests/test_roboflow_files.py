"""A package's own files: every key of `inference_config.json`, and class names."""

from __future__ import annotations

import json

import attrs
import pytest

from inference_models import (
    Artifact,
    Bundle,
    Facts,
    File,
    InvalidCard,
    InvalidOption,
    InvalidWeights,
    ModelCard,
    Preprocessing,
)
from inference_models.providers import roboflow_files
from inference_models.providers.roboflow import RoboflowProvider
from inference_models.registry import build
from inference_models.skeletons import skeletons_of

from .fakes import architecture, backend, plugin

NETWORK = {
    "training_input_size": {"height": 32, "width": 48},
    "dataset_version_resize_dimensions": None,
    "dynamic_spatial_size_supported": False,
    "dynamic_spatial_size_mode": None,
    "color_mode": "rgb",
    "resize_mode": "stretch",
    "padding_value": None,
    "input_channels": 3,
    "scaling_factor": 255,
    "normalization": None,
}


@pytest.fixture
def complete(tmp_path):
    """Completes a bundle whose folder holds these side files."""

    def of(
        config=None, names="a\nb\n", card=None, artifact=None, points=None, **network
    ):
        data = {"network_input": NETWORK | network} | (config or {})
        contents = {"class_names.txt": names, "inference_config.json": data}
        if points is not None:
            contents["keypoints_metadata.json"] = points
        for name, content in contents.items():
            if not isinstance(content, (str, bytes)):
                content = json.dumps(content)
            raw = content.encode() if isinstance(content, str) else content
            (tmp_path / name).write_bytes(raw)
        files = [File("weights.bin"), *map(File, contents)]
        facts = {"format": "other", "graphs": {"main": "weights.bin"}, "files": files}
        own = Artifact(**facts | (artifact or {}))
        about = {"id": "p/1", "architecture": "yolo", "task": "object-detection"}
        known = ModelCard(**about | {"artifacts": (own,)} | (card or {}))
        return RoboflowProvider().complete(Bundle(known, own, tmp_path))

    return of


@pytest.fixture
def spec(complete):
    """The preprocessing of a completed bundle."""

    def of(config=None, **network):
        bundle = complete(config, **network)
        return Preprocessing.from_config(bundle.config["preprocessing"])

    return of


# The network's input


def test_a_plain_network_input(spec):
    expected = Preprocessing(size=(32, 48), antialias=False, scale=1 / 255)

    assert spec() == expected


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("stretch", "stretch"),
        ("letterbox", "letterbox"),
        ("letterbox-reflect-edges", "letterbox-reflect"),
        ("center-crop", "center-crop"),
        ("fit-longer-edge", "fit-longer-edge"),
    ],
)
def test_each_way_to_resize(spec, word, mode):
    assert spec(resize_mode=word).resize == mode


def test_a_datasets_own_size_is_where_its_mode_is_applied(spec):
    dataset = {"height": 30, "width": 40}
    found = spec(resize_mode="letterbox", dataset_version_resize_dimensions=dataset)

    assert (found.size, found.canvas, found.resize) == ((32, 48), (30, 40), "letterbox")
    assert spec(dataset_version_resize_dimensions=dataset).canvas is None


@pytest.mark.parametrize(
    ("given", "value"),
    [(127, 127), (0, 0), (None, 0), ("black", 0), ("grey", 127), ("white", 255)],
)
def test_a_padding_value(spec, given, value):
    assert spec(resize_mode="letterbox", padding_value=given).padding_value == value


def test_values_are_scaled_and_normalised(spec):
    normalization = [[0.5, 0.4, 0.3], [0.2, 0.1, 0.3]]
    found = spec(scaling_factor=127.5, normalization=normalization)

    assert found.scale == pytest.approx(1 / 127.5)
    assert (found.mean, found.std) == ((0.5, 0.4, 0.3), (0.2, 0.1, 0.3))
    assert spec(scaling_factor=None).scale == 1


def test_the_order_of_colours(spec):
    assert spec(color_mode="bgr").color == "bgr"


def test_what_a_dataset_does_to_images(spec):
    steps = {
        "auto-orient": {"enabled": True},
        "static-crop": {
            "enabled": True,
            "x_min": 10,
            "x_max": 90,
            "y_min": 20,
            "y_max": 80,
        },
        "contrast": {"enabled": True, "type": "Histogram Equalization"},
        "grayscale": {"enabled": True},
    }
    found = spec({"image_pre_processing": steps})

    assert found.crop == (10, 20, 90, 80)
    assert (found.contrast, found.grayscale) == ("histogram-equalization", True)


def test_steps_that_are_switched_off_are_not_taken(spec):
    steps = {
        "static-crop": {"enabled": False, "x_min": 10},
        "contrast": {"enabled": False},
        "grayscale": None,
    }

    assert spec({"image_pre_processing": steps}) == spec()


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Adaptive Equalization", "adaptive-equalization"),
        ("Contrast Stretching", "contrast-stretching"),
        ("Histogram Equalization", "histogram-equalization"),
    ],
)
def test_each_kind_of_contrast(spec, word, name):
    steps = {"contrast": {"enabled": True, "type": word}}

    assert spec({"image_pre_processing": steps}).contrast == name


@pytest.mark.parametrize(
    ("mode", "known"),
    [
        ({"type": "pad-to-be-divisible", "value": 32}, {"divisible": 32}),
        ({"type": "any-size"}, {}),
    ],
)
def test_sizes_that_are_free(complete, mode, known):
    bundle = complete(
        dynamic_spatial_size_supported=True, dynamic_spatial_size_mode=mode
    )

    assert bundle.config["dynamic_size"] == known
    assert bundle.config["preprocessing"]["size"] == [32, 48]


@pytest.fixture
def pack(monkeypatch):
    """Installs an architecture "yolo" of these attributes, and nothing else."""

    def install(**attributes):
        known = build([plugin("acme", architecture("yolo", **attributes))])
        monkeypatch.setattr(roboflow_files, "installed", lambda: known)

    return install


def test_a_pack_says_what_its_networks_were_trained_with(complete, pack):
    told = []

    def trained_with(cls, fields):
        told.append(fields)
        return {**fields, "antialias": True, "resize": "stretch"}

    pack(trained_with=classmethod(trained_with))
    bundle = complete(color_mode="bgr", resize_mode="letterbox", scaling_factor=None)
    found = Preprocessing.from_config(bundle.config["preprocessing"])

    assert told == [
        {
            "size": [32, 48],
            "antialias": False,
            "resize": "letterbox",
            "padding_value": 0.0,
            "color": "bgr",
        }
    ]
    assert (found.color, found.resize, found.antialias) == ("bgr", "stretch", True)
    assert found.scale == 1.0


@pytest.mark.parametrize("form", ["onnx", "trt"])
def test_outputs_of_a_graph_are_the_packs_in_their_order(complete, pack, form):
    pack(outputs=("boxes", "logits"))

    found = complete(artifact={"format": form}).artifact

    assert found.rename == {"#0": "boxes", "#1": "logits"}


def test_tensors_of_a_network_that_is_made_here_keep_their_names(complete, pack):
    pack(outputs=("boxes", "logits"))

    assert complete(artifact={"format": "torch"}).artifact.rename == {}


# What a graph tells of itself


@pytest.fixture
def graph(monkeypatch):
    """Has a backend read a package's weights, and a pack know what they are."""

    def of(inputs=("input",), labels=(), batch=None):
        def claims(cls, facts):
            artifact = Artifact(
                "other", {"main": "weights.bin"}, batch=batch, rename={"#0": "scores"}
            )
            task = "object-detection"
            return ModelCard("claimed", "yolo", task, [artifact], labels)

        facts = Facts("other", {}, {"inputs": list(inputs)})
        reader = backend("acme", formats=("other",), inspect=lambda self, path: facts)
        yolo = architecture("yolo", claims=classmethod(claims))
        known = build([plugin("acme", reader, yolo)])
        monkeypatch.setattr(roboflow_files, "installed", lambda: known)

    return of


@pytest.mark.parametrize(
    ("inputs", "rename"),
    [
        (["images"], {"#0": "scores", "images": "input"}),
        (["input"], {"#0": "scores"}),
        (["images", "sizes"], {"#0": "scores"}),
    ],
)
def test_an_only_input_is_the_image_whatever_its_name(complete, graph, inputs, rename):
    graph(inputs)

    assert complete().artifact.rename == rename


def test_a_graphs_own_batch_comes_before_what_is_said_beside_it(complete, graph):
    graph(batch=(2, 2, 2))

    found = complete({"forward_pass": {"static_batch_size": 4}})

    assert found.artifact.batch == (2, 2, 2)


def test_a_network_may_have_one_column_more_than_there_are_names(complete, graph):
    graph(labels=("x", "y", "z"))
    assert complete().card.labels == ("a", "b", None)

    graph(labels=("x", "y", "z", "w"))
    with pytest.raises(InvalidWeights, match="names 2 classes, and its network has 4"):
        complete()


# Folders


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Completes a bundle of a folder, of which a backend reads `about.json`."""

    def inspect(self, path):
        about = path / "about.json"
        return (
            Facts("other", {}, json.loads(about.read_text())) if path.is_dir() else None
        )

    def claims(cls, facts):
        known = {"id": "claimed", "architecture": "yolo", "task": "object-detection"}
        artifact = Artifact("other", {"main": "."}, needs=facts.metadata["needs"])
        config = facts.metadata["config"]
        return ModelCard(**known, artifacts=[artifact], config=config)

    reader = backend("acme", formats=("other",), inspect=inspect)
    pack = architecture("yolo", claims=classmethod(claims))
    known = build([plugin("acme", reader, pack)])
    monkeypatch.setattr(roboflow_files, "installed", lambda: known)

    def of(**contents):
        files = {name.replace("_in_", "/"): about for name, about in contents.items()}
        for name, (config, needs) in files.items():
            path = tmp_path / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"config": config, "needs": needs}))
        own = Artifact("other", {"main": "."}, [File(f"{name}.json") for name in files])
        card = ModelCard("p/1", "yolo", "object-detection", [own])
        return RoboflowProvider().complete(Bundle(card, own, tmp_path))

    return of


def test_a_folder_tells_of_itself(folder):
    bundle = folder(about=({"depth": 3}, {}))

    assert (bundle.card.id, bundle.base) == ("p/1", None)
    assert bundle.config["depth"] == 3


def test_what_a_package_adapts_may_lie_in_it(folder, tmp_path):
    bundle = folder(about=({"rank": 4}, {}), base_in_about=({"depth": 3}, {}))

    assert bundle.folder == tmp_path
    assert bundle.base.folder == tmp_path / "base"
    assert [file.name for file in bundle.base.artifact.files] == ["about.json"]
    assert bundle.base.config == {"depth": 3}
    assert bundle.config == {"depth": 3, "rank": 4}


def test_a_folder_that_cannot_be_run_is_refused(folder):
    with pytest.raises(InvalidWeights, match="'p/1' cannot be run: it wants code"):
        folder(about=({}, {"unsupported": "it wants code of its own"}))


# What comes after, and the batch


@pytest.mark.parametrize(
    ("kind", "task"),
    [("softmax", "classification"), ("sigmoid", "multi-label-classification")],
)
def test_a_classifiers_task_is_that_of_its_last_step(complete, kind, task):
    config = {"post_processing": {"type": kind, "fused": True}}
    bundle = complete(config, card={"task": "classification"})

    assert bundle.card.task == task
    assert bundle.config["post_processing"] == {"type": kind, "fused": True}


def test_nms_is_kept(complete):
    nms = {"max_detections": 300, "confidence_threshold": 0.25, "iou_threshold": 0.7}
    config = {"post_processing": {"type": "nms", "fused": False, "nms_parameters": nms}}
    found = complete(config).config["post_processing"]["nms"]

    assert found["max_detections"] == 300
    assert (found["confidence"], found["iou"]) == (0.25, 0.7)


@pytest.mark.parametrize(
    ("forward", "batch"),
    [
        ({"static_batch_size": 4}, (4, 4, 4)),
        ({"max_dynamic_batch_size": 64}, (1, 16, 64)),
        ({"static_batch_size": None}, None),
    ],
)
def test_a_batch_that_the_manifest_does_not_say(complete, forward, batch):
    assert complete({"forward_pass": forward}).artifact.batch == batch


def test_the_manifests_batch_comes_first(complete):
    config = {"forward_pass": {"static_batch_size": 4}}

    assert complete(config, artifact={"batch": (8, 8, 8)}).artifact.batch == (8, 8, 8)


# Class names


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ("a\nb\n", ("a", "b")),
        ("a\nb", ("a", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("a\n\nb\n", ("a", None, "b")),
        ("\na\n", (None, "a")),
        ("a\n\n", ("a", None)),
        (" a \nb\n", ("a", "b")),
        ("\ufeffa\n", ("a",)),
        ("crane\ncrane\n", ("crane", "crane (1)")),
        ("a\na (1)\na\n", ("a", "a (1)", "a (2)")),
        ("größe\n", ("größe",)),
        ("background\n", ("background",)),
    ],
)
def test_class_names_keep_their_columns(complete, names, labels):
    assert complete(names=names).card.labels == labels


def test_a_pack_says_which_names_stand_for_no_class(complete, pack):
    def named(cls, names):
        return [None if name == "nothing" else name for name in names]

    pack(named=classmethod(named))

    assert complete(names="nothing\ncat\nnothing\n").card.labels == (None, "cat", None)


def test_a_removed_class_keeps_its_column(complete):
    removal = [{"type": "class_name_removal", "class_name": "a"}]
    bundle = complete({"class_names_operations": removal})

    assert bundle.card.labels == (None, "b")


def test_labels_of_the_user_stand(complete):
    assert complete(card={"labels": ("x", "y")}).card.labels == ("x", "y")
    with pytest.raises(InvalidOption, match="1 names, and 'p/1' has 2 columns"):
        complete(card={"labels": ("x",)})


@pytest.mark.parametrize(
    ("given", "best"),
    [
        ({"confidence": 0.4, "by_class": {}}, 0.4),
        ({"confidence": 0.4, "by_class": {"a": 0.6, "z": 0.1}}, {"a": 0.6, "b": 0.4}),
        ({"confidence": None, "by_class": {"a": 0.6}}, {"a": 0.6}),
    ],
)
def test_recommended_confidences_are_for_best(complete, given, best):
    bundle = complete(artifact={"config": {"recommended": given}})

    assert bundle.config["confidence"] == {"best": best}
    assert "recommended" not in bundle.config


def test_confidences_follow_classes_to_the_users_names(complete):
    given = {"recommended": {"confidence": 0.4, "by_class": {"a": 0.6}}}
    bundle = complete(artifact={"config": given}, card={"labels": ("x", "y")})

    assert bundle.config["confidence"] == {"best": {"x": 0.6, "y": 0.4}}


# What is refused

WRONG = {
    "no network input": ({"network_input": None}, {}, "network_input is missing"),
    "no size": ({}, {"training_input_size": None}, "training_input_size is missing"),
    "half a size": ({}, {"training_input_size": {"height": 3}}, "width is missing"),
    "a size of 0": (
        {},
        {"training_input_size": {"height": 0, "width": 9}},
        "height 0 is not from 1",
    ),
    "a negative size": (
        {},
        {"training_input_size": {"height": -1, "width": 9}},
        "height -1 is not",
    ),
    "a huge size": (
        {},
        {"training_input_size": {"height": 10**9, "width": 9}},
        "is not from 1 to 8192",
    ),
    "a size of text": (
        {},
        {"training_input_size": {"height": "9", "width": 9}},
        "height must be a number, not a text",
    ),
    "a size of a flag": (
        {},
        {"training_input_size": {"height": True, "width": 9}},
        "must be a number, not true",
    ),
    "half a pixel": (
        {},
        {"training_input_size": {"height": 9.5, "width": 9}},
        "is no whole number",
    ),
    "an unknown mode": ({}, {"resize_mode": "strech"}, "did you mean 'stretch'"),
    "unknown colours": ({}, {"color_mode": "cmyk"}, "'cmyk' is not one of 'rgb', 'bgr"),
    "one channel": ({}, {"input_channels": 1}, "input_channels is not 3"),
    "a scale of 0": ({}, {"scaling_factor": 0}, "scaling_factor 0 is not from"),
    "two means": ({}, {"normalization": [[1, 2], [1, 1, 1]]}, "lists of 3 numbers"),
    "a mean alone": ({}, {"normalization": [[1, 2, 3]]}, "is not ..mean., .std.."),
    "a std of 0": (
        {},
        {"normalization": [[0, 0, 0], [0, 1, 1]]},
        "std .* other than 0",
    ),
    "a mean of text": (
        {},
        {"normalization": [["0", 0, 0], [1, 1, 1]]},
        "must be a number",
    ),
    "a padding of 300": ({}, {"padding_value": 300}, "is not from 0 to 255"),
    "a padding of a colour": ({}, {"padding_value": "red"}, "'red' is not one of"),
    "a crop beyond": (
        {
            "image_pre_processing": {
                "static-crop": {
                    "enabled": True,
                    "x_min": 0,
                    "x_max": 640,
                    "y_min": 0,
                    "y_max": 50,
                }
            }
        },
        {},
        "x_max 640 is not from 0 to 100",
    ),
    "a crop of nothing": (
        {
            "image_pre_processing": {
                "static-crop": {
                    "enabled": True,
                    "x_min": 50,
                    "x_max": 50,
                    "y_min": 0,
                    "y_max": 50,
                }
            }
        },
        {},
        "crop .* is not",
    ),
    "half a crop": (
        {"image_pre_processing": {"static-crop": {"enabled": True, "x_min": 1}}},
        {},
        "not all there",
    ),
    "a contrast of no kind": (
        {"image_pre_processing": {"contrast": {"enabled": True}}},
        {},
        "type is missing",
    ),
    "an unknown contrast": (
        {"image_pre_processing": {"contrast": {"enabled": True, "type": "More"}}},
        {},
        "'More' is not one of",
    ),
    "a flag of text": (
        {"image_pre_processing": {"grayscale": {"enabled": "yes"}}},
        {},
        "must be true or false",
    ),
    "a free size of no kind": ({}, {"dynamic_spatial_size_supported": True}, "missing"),
    "a step of no value": (
        {},
        {
            "dynamic_spatial_size_supported": True,
            "dynamic_spatial_size_mode": {"type": "pad-to-be-divisible"},
        },
        "value is missing",
    ),
    "an unknown operation": (
        {"class_names_operations": [{"type": "rename", "class_name": "a"}]},
        {},
        "'rename' is not one of",
    ),
    "operations of text": (
        {"class_names_operations": ["a"]},
        {},
        "entry 0 is a text, no mapping",
    ),
    "an unknown last step": (
        {"post_processing": {"type": "topk"}},
        {},
        "is not one of",
    ),
    "a batch of 0": ({"forward_pass": {"static_batch_size": 0}}, {}, "is not from 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_is_wrong_is_refused_with_its_place(complete, name):
    config, network, reason = WRONG[name]
    with pytest.raises(InvalidCard, match=reason) as caught:
        complete(config, **network)

    assert str(caught.value).startswith("inference_config.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"network_input": ',
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a":' * 2000,
        b"\xff\xfe",
        b" " * 4_000_001,
    ],
)
def test_a_config_that_is_no_mapping_is_refused(complete, tmp_path, content):
    bundle = complete()
    (tmp_path / "inference_config.json").write_bytes(content)
    card = attrs.evolve(bundle.card, labels=())
    with pytest.raises(InvalidCard, match=r"^inference_config\.json"):
        RoboflowProvider().complete(attrs.evolve(bundle, card=card))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a\n" * 100_001, b"\xff\xfe\x00"])
def test_names_that_are_none_are_refused(complete, content):
    with pytest.raises(InvalidCard, match=r"class_names\.txt"):
        complete(names=content)


@pytest.mark.parametrize("count", [1, 2])
def test_a_last_column_may_be_no_class(complete, count):
    config = {"model_initialization": {"num_classes": count}}

    assert complete(config).card.labels == ("a", "b")


def test_files_that_disagree_on_the_number_of_classes_are_refused(complete):
    config = {"model_initialization": {"num_classes": 7, "model_name": "resnet18"}}
    with pytest.raises(InvalidWeights, match=r"has 7 classes and .* 2"):
        complete(config)


# Key points

FACE = {
    "object_class_id": 1,
    "keypoints": {"0": "eye", "2": "nose", "1": "ear"},
    "edges": [{"from": 0, "to": 2}, {"from": 2, "to": 1}],
}


def test_points_are_named_by_their_numbers(complete):
    config = complete(points=[FACE]).config

    assert config["key_points"] == [
        {"class_id": 1, "names": ["eye", "ear", "nose"], "skeleton": [[0, 2], [2, 1]]}
    ]
    assert skeletons_of(config, 2)[1].names == ("eye", "ear", "nose")


def test_a_package_without_points_says_nothing_of_them(complete):
    assert "key_points" not in complete().config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object_class_id": None}, "object_class_id is missing"),
        ({"object_class_id": -1}, "object_class_id -1 is not from 0"),
        ({"object_class_id": 2}, "object_class_id 2 is not from 0 to 1"),
        ({"keypoints": None}, "keypoints is missing"),
        ({"keypoints": {"1": "ear"}}, "keypoints are not numbered from 0"),
        ({"keypoints": {"0": 7}}, "0 must be a text"),
        ({"edges": [{"from": 0, "to": 3}]}, "to 3 is not from 0 to 2"),
        ({"edges": [[0, 1]]}, "edges entry 0 is a list, no mapping"),
        ({"edges": [{"from": 0}]}, "to is missing"),
    ],
)
def test_points_that_cannot_be_read_are_refused_with_their_place(
    complete, change, words
):
    with pytest.raises(InvalidCard, match=rf"^keypoints_metadata\.json.*: {words}"):
        complete(points=[FACE | change])


@pytest.mark.parametrize("classes", [[FACE, FACE], [FACE] * 3])
def test_points_of_more_classes_than_there_are_are_refused(complete, classes):
    with pytest.raises(InvalidCard, match=r"^keypoints_metadata\.json"):
        complete(points=classes)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"null", b'[{"a":' * 99])
def test_points_that_are_no_list_of_mappings_are_refused(complete, content):
    with pytest.raises(InvalidCard, match=r"^keypoints_metadata\.json"):
        complete(points=content)


def test_a_package_without_side_files_keeps_its_card(complete):
    bundle = complete()
    bare = attrs.evolve(bundle.artifact, files=(File("weights.bin"),))
    card = attrs.evolve(bundle.card, labels=(), config={"size": "nano"})
    found = RoboflowProvider().complete(attrs.evolve(bundle, card=card, artifact=bare))

    assert (found.card.labels, found.config) == ((), {"size": "nano"})
