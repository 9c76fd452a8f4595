"""Roboflow's package manifests as artifacts, and what is left out and why."""

from __future__ import annotations

import re

import pytest

from inference_models import AutoModel, ModelCard, NoBackend
from inference_models.providers.roboflow_packages import card_of, file_of
from inference_models.strict_json import Node

from .roboflow_server import SIGNATURE, package

HOST = "https://api.example.org"
MD5 = "0123456789abcdef" * 2


def entry(handle="weights.onnx", **changes):
    url = f"https://files.example.org/{handle}?{SIGNATURE}"
    return {"fileHandle": handle, "downloadUrl": url, "md5Hash": MD5} | changes


def described(*handles, **fields):
    return package(files=[entry(handle) for handle in handles], **fields)


def card(*packages, **changes):
    data = {
        "type": "external-model-metadata-v1",
        "modelId": "ws/project/3",
        "modelArchitecture": "rfdetr",
        "modelVariant": "rfdetr-nano",
        "taskType": "object-detection",
        "modelPackages": list(packages),
    }
    return card_of([Node(data | changes, "answer")], HOST)


def artifact(*handles, **fields):
    (found,) = card(described(*handles, **fields)).artifacts
    return found


def manifest(kind, **fields):
    return {"type": f"{kind}-model-package-v1", "backendType": kind} | fields


# Every type


def test_an_onnx_package():
    found = artifact("weights.onnx", manifest={"incompatibleProviders": ["CoreML"]})

    assert (found.format, found.precision, found.batch) == ("onnx", "fp32", None)
    assert found.graphs == {"main": "weights.onnx"}
    assert found.needs == {"opset": 17, "incompatible_providers": ["CoreML"]}


def test_an_onnx_package_of_two_graphs():
    found = artifact("visual.onnx", "textual.onnx", "tokenizer.json")

    assert found.graphs == {"visual": "visual.onnx", "textual": "textual.onnx"}


@pytest.mark.parametrize(
    "handle", ["weights.pth", "weights.pt", "weights.safetensors", "model.pt"]
)
def test_a_torch_package(handle):
    found = artifact(handle, "class_names.txt", manifest=manifest("torch"))

    assert (found.format, found.graphs, found.needs) == ("torch", {"main": handle}, {})


def test_a_package_of_transformers():
    found = artifact("config.json", "model.safetensors", manifest=manifest("hf"))

    assert (found.format, found.graphs, found.batch) == ("hf", {"main": "."}, None)


def test_an_adapter_names_what_it_adapts():
    dependency = {
        "type": "model-dependency-v1",
        "name": "base_model",
        "modelId": "florence-2-base",
    }
    packages = [
        described("adapter_model.safetensors", manifest=manifest("hf")),
        described("weights.onnx", packageId="b"),
    ]
    found = card(*packages, modelDependencies=[dependency])

    assert [a.base for a in found.artifacts] == ["florence-2-base", None]


def test_an_adapter_that_holds_what_it_adapts_names_nothing():
    dependency = {
        "type": "model-dependency-v1",
        "name": "base_model",
        "modelId": "florence-2-base",
    }
    files = ("adapter_model.safetensors", "base/model.safetensors")
    found = card(
        described(*files, manifest=manifest("hf")), modelDependencies=[dependency]
    )

    assert found.artifacts[0].base is None


def test_a_model_that_answers_prompts_has_the_task_of_this_library():
    assert card(taskType="vlm").task == "vision-language"


def test_a_torch_script_package():
    needs = {"supportedDeviceTypes": ["cpu", "cuda"], "torchVersion": "2.6.0"}
    found = artifact("weights.torchscript", manifest=manifest("torch-script", **needs))

    assert found.format == "torch-script"
    assert found.needs["devices"] == ["cpu", "cuda"]
    assert found.needs["torch"] == "2.6.0"


ENGINE = {
    "minBatchSize": 1,
    "optBatchSize": 8,
    "maxBatchSize": 16,
    "quantization": "fp16",
    "cudaDeviceType": "orin",
    "cudaDeviceCC": "8.7",
    "cudaVersion": "12.6",
    "trtVersion": "10.3.0.17",
    "sameCCCompatible": True,
    "trtForwardCompatible": False,
    "machineType": "jetson",
    "machineSpecs": {
        "type": "jetson-machine-specs-v1",
        "l4tVersion": "36.4.3",
        "deviceName": "jetson-orin-nx",
        "driverVersion": "540.4.0",
    },
}


@pytest.mark.parametrize("best", [1, 16])
def test_an_engines_best_batch_may_be_its_smallest_or_largest(best):
    told = manifest("trt", **ENGINE | {"optBatchSize": best})

    assert artifact("engine.plan", manifest=told).batch == (1, best, 16)


def test_an_engine_says_what_it_was_built_for():
    found = artifact("engine.plan", manifest=manifest("trt", **ENGINE))

    assert (found.format, found.precision) == ("trt", "fp16")
    assert found.batch == (1, 8, 16)
    assert found.needs == {
        "compute_capability": "8.7",
        "device": "orin",
        "cuda": "12.6",
        "tensorrt": "10.3.0.17",
        "same_compute_capability": True,
        "forward_compatible": False,
        "lean_runtime_excluded": False,
        "machine": "jetson",
        "l4t": "36.4.3",
        "jetson": "jetson-orin-nx",
        "driver": "540.4.0",
    }


def test_a_fixed_batch():
    batch = {"dynamicBatchSize": False, "staticBatchSize": 8}

    assert artifact("weights.onnx", manifest=batch).batch == (8, 8, 8)


@pytest.mark.parametrize("word", ["fp32", "fp16", "bf16", "int8"])
def test_the_precision_is_that_of_quantization(word):
    assert artifact("weights.onnx", manifest={"quantization": word}).precision == word


@pytest.mark.parametrize("word", ["unknown", None])
def test_an_unknown_precision_is_taken_for_float32(word):
    found = artifact("weights.onnx", manifest={"quantization": word})

    assert found.precision == "fp32"


def test_the_variant_says_the_size():
    assert card().config == {"size": "nano"}
    assert card(modelVariant=None).config == {}


def test_recommended_parameters_of_a_package_come_before_the_models():
    ours = {"confidence": 0.4, "perClassConfidence": {"cat": 0.5}}
    found = card(
        described("weights.onnx", recommendedParameters=ours),
        recommendedParameters={"confidence": 0.3},
    )
    theirs = {"confidence": 0.3, "by_class": {}}

    assert found.config["recommended"] == theirs
    assert found.artifacts[0].config == {
        "recommended": {"confidence": 0.4, "by_class": {"cat": 0.5}}
    }


def test_features_are_kept():
    fused = {"nms_fused": {"max_detections": 300}}

    assert artifact("weights.onnx", modelFeatures=fused).config == {"features": fused}


def test_files_have_a_lasting_source_and_no_signature():
    (file,) = artifact("weights.onnx").files
    (source,) = file.sources

    assert file.md5 == MD5
    assert source.startswith(f"{HOST}/models/v1/external/weights?modelId=")
    assert SIGNATURE not in source
    assert file_of(source) == ("ws/project/3", "abc123", "weights.onnx")


def test_a_card_survives_its_json():
    found = card(described("weights.onnx"), described("x.bin", packageId="b"))

    assert ModelCard.from_json(found.to_json()) == found


# What is left out


WRONG = {
    "an unknown type": ({"manifest": manifest("oak")}, "backend known here"),
    "a type of tomorrow": ({"manifest": {"type": "onnx-model-package-v9"}}, "backend"),
    "another schema": ({"type": "external-model-package-v7"}, "this version reads"),
    "no manifest": ({"packageManifest": None}, "packageManifest is missing"),
    "no list of files": ({"packageFiles": None}, "has none of weights.onnx"),
    "an id with dots": ({"packageId": "../x"}, "letters and digits"),
    "no weights": ({"packageFiles": [entry("readme.md")]}, "none of weights.onnx"),
    "a handle twice": ({"packageFiles": [entry(), entry()]}, "more than once"),
    "a handle in another case": (
        {"packageFiles": [entry(), entry("Weights.onnx")]},
        "more than once",
    ),
    "a handle that leaves": ({"packageFiles": [entry("../w.onnx")]}, "not allowed"),
    "an absolute handle": ({"packageFiles": [entry("/w.onnx")]}, "not allowed"),
    "a handle of a device": ({"packageFiles": [entry("nul")]}, "not allowed"),
    "a handle that is none": ({"packageFiles": [entry(fileHandle=3)]}, "must be a te"),
    "a handle that is cut": ({"packageFiles": [entry(fileHandle="\ud800")]}, "half of"),
    "a handle without end": (
        {"packageFiles": [entry(fileHandle="x" * 9999)]},
        "^.{,400}$",
    ),
    "a hash without end": ({"packageFiles": [entry(md5Hash="x" * 9999)]}, "^.{,400}$"),
    "no hash": ({"packageFiles": [entry(md5Hash=None)]}, "md5Hash .* is missing"),
    "half a hash": ({"packageFiles": [entry(md5Hash="abc")]}, "hexadecimal"),
    "an open address": (
        {"packageFiles": [entry(downloadUrl="http://example.org/w")]},
        "no https:// address",
    ),
    "a file's address": (
        {"packageFiles": [entry(downloadUrl="file:///etc/passwd")]},
        "no https:// address",
    ),
    "no batch": ({"manifest": {"dynamicBatchSize": False}}, "must be given"),
    "both batches": ({"manifest": {"staticBatchSize": 4}}, "and not both"),
    "a batch of none": (
        {"manifest": {"dynamicBatchSize": False, "staticBatchSize": 0}},
        "is not from 1",
    ),
    "a batch that is a text": (
        {"manifest": {"dynamicBatchSize": "yes"}},
        "must be true or false",
    ),
    "an unknown precision": ({"manifest": {"quantization": "int4"}}, "is not one of"),
    "an opset that is a text": ({"manifest": {"opset": "17"}}, "must be a number"),
    "half an opset": ({"manifest": {"opset": 17.5}}, "is no whole number"),
    "providers of numbers": (
        {"manifest": {"incompatibleProviders": [1]}},
        "must hold texts",
    ),
    "an unordered range": (
        {
            "manifest": manifest("trt", **ENGINE | {"minBatchSize": 9}),
            "packageFiles": [entry("engine.plan")],
        },
        "unordered",
    ),
    "half a range": (
        {
            "manifest": manifest("trt", **ENGINE | {"optBatchSize": None}),
            "packageFiles": [entry("engine.plan")],
        },
        "missing",
    ),
    "an engine of a stranger": (
        {
            "manifest": manifest("trt", **ENGINE),
            "trustedSource": False,
            "packageFiles": [entry("engine.plan")],
        },
        "trt files run as code",
    ),
    "a program of a stranger": (
        {
            "manifest": manifest("torch-script"),
            "trustedSource": False,
            "packageFiles": [entry("weights.torchscript")],
        },
        "torch-script files run as code",
    ),
    "a class's confidence above 1": (
        {"recommendedParameters": {"perClassConfidence": {"cat": 1.5}}},
        "is not from 0 to 1",
    ),
    "a class's name that garbles": (
        {"recommendedParameters": {"perClassConfidence": {"\x1b[2J\ud800": 2}}},
        r"'\\x1b\[2J\\ud800' 2 is not from 0 to 1",
    ),
    "a provider that is cut": (
        {"manifest": {"incompatibleProviders": ["\ud800"]}},
        "half of a character",
    ),
    "a confidence of a text": (
        {"recommendedParameters": {"confidence": "high"}},
        "must be a number",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_package_concerns_no_other(name):
    changes, _ = WRONG[name]
    found = card(described("weights.onnx", **changes), described("weights.onnx"))
    first, second = found.artifacts

    assert "unsupported" in first.needs
    assert first.graphs == {}
    assert second.graphs == {"main": "weights.onnx"}


@pytest.mark.parametrize("name", WRONG)
def test_the_reason_names_the_place(name):
    changes, reason = WRONG[name]
    found = artifact("weights.onnx", **changes)

    assert re.search(reason, found.needs["unsupported"])
    assert found.needs["unsupported"].startswith("answer: modelPackages[0]")


def test_a_package_that_is_there_twice_counts_once():
    found = card(described("weights.onnx"), described("weights.onnx"))

    assert "more than once" in found.artifacts[1].needs["unsupported"]


def test_torch_weights_of_a_stranger_are_read_as_data_and_used():
    found = artifact("weights.pth", manifest=manifest("torch"), trustedSource=False)

    assert "unsupported" not in found.needs


# What negotiation makes of them


def of_acme(acme, *artifacts):
    return acme.card(artifacts=artifacts)


@pytest.fixture
def left_out(acme, monkeypatch):
    """A model with one artifact that runs, and one of its format that is left out."""
    sound = acme.artifact()
    unusable = acme.artifact(graphs={}, needs={"unsupported": "entry 3 is a number"})
    monkeypatch.setattr(
        acme.Colors, "cards", classmethod(lambda cls: [of_acme(acme, unusable, sound)])
    )
    return acme


def test_what_is_left_out_is_never_chosen_and_explained(left_out):
    explanation = AutoModel.explain("acme-colors")

    assert explanation.best.format == "acme"
    assert "acme is left out: entry 3 is a number" in str(explanation)
    assert AutoModel.from_pretrained("acme-colors").backend == "acme"


def test_where_all_is_left_out_the_error_says_why(left_out, monkeypatch):
    unusable = left_out.artifact(graphs={}, needs={"unsupported": "it is an oak"})
    monkeypatch.setattr(
        left_out.Colors, "cards", classmethod(lambda cls: [of_acme(left_out, unusable)])
    )
    with pytest.raises(NoBackend, match="acme is left out: it is an oak"):
        AutoModel.from_pretrained("acme-colors")
