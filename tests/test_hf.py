"""Folders of transformers: run as its own pipelines run them, by packs and without."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline
from transformers.utils import logging

from inference_models import (
    AutoModel,
    ClassificationModel,
    InvalidWeights,
    MultiLabelClassificationModel,
    NoBackend,
    ObjectDetectionModel,
)
from inference_models_hf.folder import wants_code
from inference_models_torch import header

from . import hf_folders
from .hf_folders import (
    CLASSIFIERS,
    DETECTORS,
    MORE_CLASSIFIERS,
    enlivened,
    saved,
    spread_out,
)

SIDES = {"dinov2": 98, "dinov2-registers": 98, "hiera": 64}
SOON_EXPORTED = ("convnext", "vit", "yolos")
EXPORTED = [
    pytest.param(name, marks=[] if name in SOON_EXPORTED else [pytest.mark.slow])
    for name in [*CLASSIFIERS, *DETECTORS]
    if name != "deformable-detr"
]


@pytest.fixture(autouse=True)
def _quiet():
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def pictures(photos):
    """Photos of three shapes, with odd sides."""
    cuts = {"astronaut": (377, 501), "chelsea": (300, 451), "coffee": (400, 333)}
    rgb = {name: photos[name][:h, :w, ::-1] for name, (h, w) in cuts.items()}
    return [Image.fromarray(np.ascontiguousarray(each)) for each in rgb.values()]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Writes the folder of a model, once."""
    root, written = tmp_path_factory.mktemp("hf"), {}

    def write(name):
        if name not in written:
            makers = CLASSIFIERS | MORE_CLASSIFIERS | DETECTORS
            makers |= {"resnet": hf_folders.resnet}
            model, processor = makers[name]()
            model = enlivened(model)
            if name not in DETECTORS:
                model = spread_out(model, SIDES.get(name, 96))
            written[name] = saved(root / name, model, processor)
        return written[name]

    return write


@pytest.fixture
def folder(folder_of, tmp_path):
    """A folder of ViT to be changed."""
    return Path(shutil.copytree(folder_of("vit"), tmp_path / "vit"))


def changed(folder, name, **changes):
    """Change a JSON file of a folder, or write it; None takes a key out."""
    path = folder / name
    data = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    data |= changes
    kept = {key: value for key, value in data.items() if value is not None}
    (folder / name).write_text(json.dumps(kept), "utf-8")
    return folder


def pipe_of(task, folder):
    """transformers' own pipeline; beside torchvision it would resize by that."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return pipeline(task, str(folder), image_processor=processor, device="cpu")


def scores(folder, pictures):
    """What transformers' own pipeline gives, a row an image."""
    pipe = pipe_of("image-classification", folder)
    named = [{one["label"]: one["score"] for one in pipe(p, top_k=9)} for p in pictures]
    return [[row[name] for name in hf_folders.CLASSES.values()] for row in named]


def boxes(folder, pictures):
    """What transformers' own pipeline finds, before it rounds to whole pixels."""
    pipe = pipe_of("object-detection", folder)
    found = []
    for picture in pictures:
        size = [(picture.height, picture.width)]
        outputs = pipe.forward(pipe.preprocess(picture))
        processor = pipe.image_processor
        (one,) = processor.post_process_object_detection(outputs, 0.0, size)
        found.append({name: tensor.numpy() for name, tensor in one.items()})
    return found


def check_same(expected, found, picture):
    """Each box of one is one of the other; near ties may stand in another order."""
    limit = [picture.width, picture.height] * 2
    assert len(expected["scores"]) == len(found)
    left = set(range(len(found)))
    for score, label, box in zip(*expected.values(), strict=True):
        box = np.clip(box, 0, limit)
        alike = [
            i
            for i in left
            if label == found.class_id[i]
            and abs(score - found.confidence[i]) <= 1e-3
            and np.abs(box - found.xyxy[i]).max() <= 0.5
        ]
        assert alike, (score, label, box)
        left.remove(alike[0])


# As transformers' own pipelines


@pytest.mark.parametrize("name", [*CLASSIFIERS, *MORE_CLASSIFIERS, "resnet"])
def test_a_classifier_scores_as_the_pipeline(folder_of, pictures, name):
    model = AutoModel.from_pretrained(folder_of(name), backend="hf")
    expected = np.array(scores(folder_of(name), pictures))
    found = model(pictures).confidence

    assert isinstance(model, ClassificationModel)
    assert expected.std(axis=1).min() > 0.02  # classes differ
    assert np.abs(expected - np.asarray(found)).max() <= 1e-3


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_finds_what_the_pipeline_finds(folder_of, pictures, name):
    model = AutoModel.from_pretrained(folder_of(name), backend="hf")
    found = model(pictures, confidence=0)

    assert isinstance(model, ObjectDetectionModel)
    for picture, theirs, ours in zip(
        pictures, boxes(folder_of(name), pictures), found, strict=True
    ):
        check_same(theirs, ours, picture)


def test_a_query_has_the_first_of_classes_that_are_equally_likely(folder_of, pictures):
    model = AutoModel.from_pretrained(folder_of("detr"), backend="hf")
    _, frames = model.pre_process(pictures[:1])
    logits = np.float32([[[3, 0, 3, 0, 0, 0], [0, 4, 0, 4, 4, 0]]])
    outputs = {"logits": logits, "boxes": np.full((1, 2, 4), 0.5, np.float32)}
    (found,) = model.post_process(outputs, frames, confidence=0)

    assert found.class_id.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["detr", "yolos", "rt-detr"])
def test_images_of_mixed_sizes_give_what_each_gives_alone(folder_of, pictures, name):
    model = AutoModel.from_pretrained(folder_of(name), backend="hf", batch_size=8)
    mixed = [pictures[0], pictures[1], pictures[0], pictures[2]]
    together = model(mixed, confidence=0)

    for picture, found in zip(mixed, together, strict=True):
        (alone,) = model(picture, confidence=0)
        assert np.abs(alone.confidence - found.confidence).max() <= 1e-4
        assert np.abs(alone.xyxy - found.xyxy).max() <= 0.1


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_derived_agrees(folder_of, pictures, name):
    hf, onnx = (
        AutoModel.from_pretrained(folder_of(name), backend=backend)
        for backend in ("hf", "onnx")
    )
    if name in CLASSIFIERS:
        pair = (np.asarray(model(pictures).confidence) for model in (hf, onnx))
        assert np.abs(np.subtract(*pair)).max() <= 1e-3
        return
    for picture in pictures:
        (expected,), (found,) = (model(picture, confidence=0) for model in (hf, onnx))
        theirs = {
            "scores": expected.confidence,
            "labels": expected.class_id,
            "boxes": expected.xyxy,
        }
        check_same(theirs, found, picture)


@pytest.mark.slow
def test_a_network_that_torch_cannot_export_is_refused_in_a_sentence(tmp_path):
    model, processor = hf_folders.deformable_detr()
    folder = saved(tmp_path / "deformable-detr", enlivened(model), processor)
    with pytest.raises(InvalidWeights, match="was discarded"):
        AutoModel.from_pretrained(folder, backend="onnx")


def test_attention_is_torchs_own_where_a_model_has_it(folder_of, monkeypatch):
    called = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noting(*arguments, **options):
        called.append(arguments[0].shape)
        return attend(*arguments, **options)

    name = "scaled_dot_product_attention"
    folder = folder_of("vit")
    monkeypatch.setattr(torch.nn.functional, name, noting)
    AutoModel.from_pretrained(folder)(np.zeros((9, 9, 3), np.uint8))

    assert len(called) == 2  # layers


def test_a_precision_that_is_named_is_taken(folder_of, pictures):
    model = AutoModel.from_pretrained(folder_of("vit"), quantization="bf16")
    expected = AutoModel.from_pretrained(folder_of("vit"))(pictures).confidence
    found = model(pictures).confidence

    assert model.precision == "bf16"
    assert 0 < np.abs(np.subtract(expected, found)).max() < 0.05


# Packs come first


def test_a_resnet_runs_through_its_pack_on_three_backends(folder_of, pictures):
    folder = folder_of("resnet")
    explained = AutoModel.explain(folder)
    models = [
        AutoModel.from_pretrained(folder, backend=backend)
        for backend in ("torch", "hf", "onnx")
    ]
    torch_scores, *others = (np.asarray(m(pictures).confidence) for m in models)

    assert explained.card.architecture == "resnet"
    order = dict.fromkeys(c.backend for c in explained.candidates)
    assert [name for name in order if name != "trt"] == ["torch", "hf", "onnx"]
    assert AutoModel.from_pretrained(folder).backend == "torch"
    for found in others:
        assert np.abs(torch_scores - found).max() <= 1e-3


def test_a_relative_of_resnet_runs_on_hf_alone(tmp_path, pictures):
    model, processor = hf_folders.resnet(downsample_in_first_stage=True)
    folder = saved(tmp_path / "relative", enlivened(model), processor)
    found = AutoModel.from_pretrained(folder)

    assert (found.card.architecture, found.backend) == ("resnet", "hf")
    expected = np.array(scores(folder, pictures))
    assert np.abs(expected - np.asarray(found(pictures).confidence)).max() <= 1e-3


def rf_detr_folder(folder, network):
    processor = {"image_processor_type": "RfDetrImageProcessor"}
    processor |= {"size": {"height": 128, "width": 128}}
    saved(folder, network)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.parametrize("kind", ["ObjectDetection", "InstanceSegmentation"])
def test_rf_detr_runs_through_its_pack(kind, tmp_path, pictures):
    network = enlivened(hf_folders.rf_detr(kind))
    model = AutoModel.from_pretrained(rf_detr_folder(tmp_path / "rf-detr", network))
    inputs, _ = model.pre_process(pictures)
    found = model.forward(inputs)
    with torch.no_grad():
        expected = network(torch.as_tensor(inputs["input"]))

    assert (model.card.architecture, model.backend) == ("rfdetr", "hf")
    for ours in found:
        theirs = expected[ours if ours == "logits" else f"pred_{ours}"].numpy()
        difference = np.abs(theirs - np.asarray(found[ours])).max()
        assert difference <= 1e-4 * max(1, np.abs(theirs).max())
    assert ("masks" in found) == (kind == "InstanceSegmentation")
    assert model.class_names == list(hf_folders.CLASSES.values())


def test_rf_detr_of_transformers_gives_masks_of_the_pictures_sizes(tmp_path, pictures):
    network = enlivened(hf_folders.rf_detr("InstanceSegmentation"))
    model = AutoModel.from_pretrained(rf_detr_folder(tmp_path / "rf-detr", network))

    assert model.task == "instance-segmentation"
    for image, found in zip(pictures, model(pictures, confidence=0), strict=True):
        assert found.masks.shape == (20, image.height, image.width)


# What a folder says


def test_a_folder_says_what_it_is(folder_of):
    model = AutoModel.from_pretrained(folder_of("vit"))

    assert model.class_names == list(hf_folders.CLASSES.values())
    assert (model.card.architecture, model.backend) == ("hf-classifier", "hf")
    assert model.card.id == str(folder_of("vit"))


def test_classes_without_a_name_are_never_returned(folder, pictures):
    names = {"0": "ant", "1": "N/A", "2": "ant", "3": "N/A", "4": "elk"}
    model = AutoModel.from_pretrained(changed(folder, "config.json", id2label=names))
    prediction = model(pictures)

    assert model.class_names == ["ant", "", "ant (2)", "", "elk"]
    assert np.asarray(prediction.confidence)[:, [1, 3]].max() == 0


def test_several_labels_an_image(folder, pictures):
    kind = "multi_label_classification"
    model = AutoModel.from_pretrained(changed(folder, "config.json", problem_type=kind))
    pipe = pipe_of("image-classification", folder)
    expected = {one["label"]: one["score"] for one in pipe(pictures[0], top_k=9)}
    (found,) = model(pictures[:1])

    assert isinstance(model, MultiLabelClassificationModel)
    for name, score in expected.items():
        assert abs(found.confidence[name] - score) <= 1e-3


def test_shards_are_read_as_their_index_says(tmp_path, pictures):
    model, processor = CLASSIFIERS["vit"]()
    model = spread_out(enlivened(model), 96)
    whole = saved(tmp_path / "whole", model, processor)
    parts = tmp_path / "parts"
    model.save_pretrained(parts, max_shard_size="30KB")
    processor.save_pretrained(parts)
    pair = (
        np.asarray(AutoModel.from_pretrained(path)(pictures).confidence)
        for path in (whole, parts)
    )

    assert len(list(parts.glob("model-*.safetensors"))) > 1
    assert np.array_equal(*pair)


# What is refused, in a sentence


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"auto_map": {"AutoModel": "m.M"}}, "'auto_map'.*no code of"),
        ("config.json", {"trust_remote_code": True}, "'trust_remote_code'"),
        (
            "config.json",
            {"attn_implementation": "org/kernel@main"},
            "'attn_implementation'.*may fetch native code",
        ),
        (
            "config.json",
            {"part": {"_attn_implementation": {"": "sdpa", "x": "org/kernel"}}},
            "'_attn_implementation'.*may fetch",
        ),
        (
            "config.json",
            {"attn_implementation": {"part": {"": "org/kernel"}}},
            "'attn_implementation'.*may fetch",
        ),
        (
            "config.json",
            {"parts": [{"attn_implementation": ["org/kernel"]}]},
            "'attn_implementation'.*may fetch",
        ),
        ("config.json", {"experts_implementation": "deepgemm"}, "may fetch native"),
        ("config.json", {"backbone": "org/name"}, "'backbone'.*another model's files"),
        (
            "config.json",
            {"backbone": "name", "use_timm_backbone": False},
            "'backbone'.*another model's files",
        ),
        (
            "config.json",
            {"part": {"model_type": "timm_backbone", "backbone": "hf-hub:org/name"}},
            "'backbone'.*another model's files",
        ),
        (
            "config.json",
            {"model_type": "timm_wrapper", "architecture": "hf_hub:org/name"},
            "'architecture'.*another model's files",
        ),
        (
            "config.json",
            {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "a.pth"}},
            "'model_args'.*another model's files",
        ),
        (
            "adapter_config.json",
            {"base_model_name_or_path": "org/name"},
            "'adapter_config.json' beside its config.json",
        ),
        (
            "config.json",
            {"quantization_config": {"quant_method": "eetq"}},
            "'quantization_config'.*may fetch",
        ),
        ("preprocessor_config.json", {"resample": 1}, "resample 1 is not one of 0 (ne"),
        (
            "preprocessor_config.json",
            {"image_processor_type": "SamImageProcessor"},
            "'SamImageProcessor' is not one of Beit, Bit",
        ),
        ("preprocessor_config.json", {"size": {"largest": 3}}, "names largest"),
        (
            "preprocessor_config.json",
            {"size": {"height": -1, "width": 2}},
            "'-1' is no",
        ),
        ("preprocessor_config.json", {"image_std": [1, 2]}, "lists of 3 numbers"),
        ("preprocessor_config.json", {"image_std": [0, 0, 0]}, "std"),
    ],
)
def test_what_cannot_be_run_says_why(folder, file, changes, words):
    with pytest.raises(NoBackend) as caught:
        AutoModel.from_pretrained(changed(folder, file, **changes))

    assert all(part in str(caught.value) for part in words.split(".*"))
    assert words.split(".*")[0] in str(AutoModel.explain(folder))


@pytest.mark.parametrize("offline", ["", "1"])
def test_offline_the_hub_is_not_asked_for_a_backbone_of_timm(
    folder, monkeypatch, offline
):
    """transformers asks whether there is a repository of that name."""
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", offline)
    kwargs = {"out_indices": [1, 2, 3, 4], "in_chans": 3}
    config = {"use_timm_backbone": True, "backbone": "resnet50"}
    told = str(
        AutoModel.explain(
            changed(folder, "config.json", **config, backbone_kwargs=kwargs)
        )
    )

    assert ("another model's files" in told) is bool(offline)


def test_a_kernel_is_seen_behind_parts_that_are_nested_without_end():
    part = {}
    for _ in range(10_000):
        part = {"part": part}

    assert "may fetch native code" in wants_code({**part, "attn_implementation": "a/b"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_labels": 2_000_000}, r"wants 2000000 classes \(num_labels\)"),
        ({"part": {"num_labels": 2_000_000}}, r"wants 2000000 classes"),
        ({"window_size": 90}, r"wants 90 patches a side of a window"),
        ({"part": {"model_type": "levit", "image_size": 640}}, "wants 640 pixels"),
    ],
)
def test_numbers_that_would_have_tables_made_without_end_are_refused(
    folder, changes, words
):
    with pytest.raises(InvalidWeights, match=words):
        AutoModel.from_pretrained(
            changed(folder, "config.json", **changes), backend="hf"
        )


def test_a_card_without_a_config_does_not_have_another_read(folder):
    card = AutoModel.from_pretrained(folder).card.to_json()
    artifact = card["artifacts"][0]
    artifact["files"] = [f for f in artifact["files"] if f["name"] != "config.json"]
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    (folder / "config.json").unlink()

    with pytest.raises(InvalidWeights, match=r"has no file config\.json"):
        AutoModel.from_pretrained(folder, backend="hf")


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (
            "config.json",
            {"attn_implementation": "org/kernel@main"},
            "by which transformers may fetch native",
        ),
        (
            "adapter_config.json",
            {"base_model_name_or_path": "org/name"},
            "by which transformers changes the we",
        ),
    ],
    ids=["kernel", "adapter"],
)
def test_a_card_beside_a_config_hides_nothing(folder, file, changes, words):
    card = AutoModel.from_pretrained(folder).card.to_json()
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    changed(folder, file, **changes)

    with pytest.raises(InvalidWeights, match=words):
        AutoModel.from_pretrained(folder, backend="hf")


def test_a_header_that_would_take_all_memory_is_refused(folder, monkeypatch):
    monkeypatch.setattr(header, "_LONGEST_HEADER", 8)
    with pytest.raises(InvalidWeights, match="bytes, as no tensors need"):
        AutoModel.from_pretrained(folder, backend="hf")


def test_a_folder_without_a_processor_says_what_is_missing(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(NoBackend, match=r"it has no preprocessor_config\.json"):
        AutoModel.from_pretrained(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(NoBackend, match=r"'pytorch_model.bin' alone, a pickle"):
        AutoModel.from_pretrained(folder)


def test_a_backbone_of_timm_is_refused_where_there_is_no_timm(folder_of, tmp_path):
    copy = Path(shutil.copytree(folder_of("detr"), tmp_path / "detr"))
    changed(copy, "config.json", use_timm_backbone=True, backbone="resnet50")
    with pytest.raises(NoBackend, match="its backbone is one of timm, which is not"):
        AutoModel.from_pretrained(copy)


def test_code_in_a_folder_is_not_run(folder, pictures, tmp_path):
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')"
    for name in ("modeling_vit.py", "__init__.py", "configuration_vit.py"):
        (folder / name).write_text(code, "utf-8")
    AutoModel.from_pretrained(folder)(pictures)

    assert not canary.exists()


def test_a_class_that_nobody_knows_is_named(folder):
    changed(folder, "config.json", architectures=["StrangeForImageClassification"])
    with pytest.raises(InvalidWeights, match="names 'StrangeForImageClassification'"):
        AutoModel.from_pretrained(folder)


def test_weights_of_another_model_are_refused(folder, folder_of):
    shutil.copy(folder_of("beit") / "model.safetensors", folder)
    with pytest.raises(InvalidWeights, match=r"lacks vit\..* and \d+ more"):
        AutoModel.from_pretrained(folder, backend="hf")


def test_weights_of_another_shape_are_refused(folder):
    changed(folder, "config.json", id2label={str(n): f"c{n}" for n in range(7)})
    with pytest.raises(InvalidWeights, match="classifier"):
        AutoModel.from_pretrained(folder, backend="hf")


@pytest.mark.parametrize(
    "setting", [{"num_hidden_layers": 9999}, {"intermediate_size": 10**8}]
)
def test_a_network_far_larger_than_its_weights_is_not_made(folder, setting):
    changed(folder, "config.json", **setting)
    with pytest.raises(InvalidWeights, match="its config wants far more or larger"):
        AutoModel.from_pretrained(folder, backend="hf")


@pytest.mark.parametrize(
    "setting",
    [
        {"num_hidden_layers": 2**63},
        {"depths": [1, 1, 10**4, 1]},
        {"vision_config": {"encoder_layers": 10**6}},
    ],
)
def test_more_layers_than_any_network_has_are_not_listed(folder, setting):
    changed(folder, "config.json", **setting)
    with pytest.raises(InvalidWeights, match="no network has more than 10000"):
        AutoModel.from_pretrained(folder, backend="hf")


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_weights_that_are_cut_off_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InvalidWeights, match="cannot load"):
        AutoModel.from_pretrained(folder, backend="hf")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read as JSON"),
        (b"[]", "holds a list and no mapping"),
        (b'{"architectures": "ViT", "model_type": "vit"}', "must be a list"),
        (b'{"architectures": ["ViT"], "id2label": {"1": "a"}}', "count its classes"),
        (b'{"architectures": ["ViT"], "id2label": {"x": "a"}}', "is no number of a"),
    ],
)
def test_a_config_that_is_wrong_is_named(folder, content, words):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InvalidWeights, match=words):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/model.safetensors", "model.bin", 3]
)
def test_an_index_that_leads_elsewhere_is_refused(folder, shard):
    index = {"weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidWeights, match=r"no \.safetensors file beside"):
        AutoModel.from_pretrained(folder)


# Imports


@pytest.mark.skipif(bool(find_spec("torchvision")), reason="torchvision is here")
def test_torchvision_is_not_needed(folder_of):
    assert "Pil" in type(AutoImageProcessor.from_pretrained(folder_of("vit"))).__name__


@pytest.mark.parametrize("asked", ["installed()", "AutoModel.explain('{folder}')"])
def test_neither_torch_nor_transformers_is_imported_to_explain(run, folder_of, asked):
    code = f"""
import sys
from inference_models import AutoModel
from inference_models.registry import installed
{asked.format(folder=folder_of("vit"))}
heavy = [name in sys.modules for name in ("torch", "transformers")]
print("hf" in installed().backends, *heavy)
"""

    assert run(code, Path.cwd()).split() == ["True", "False", "False"]
