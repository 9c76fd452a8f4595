"""What the backend says of itself and of engines, from facts alone."""

from __future__ import annotations

import re

import attrs
import pytest

from inference_models import (
    Artifact,
    Facts,
    InvalidOption,
    InvalidWeights,
    ModelCard,
    Plan,
    Unavailable,
)
from inference_models.testing import ToyArchitecture
from inference_models_trt import TrtBackend, backends
from inference_models_trt.installed import Installed, find_installed

KINDS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]


def refusal(device="cuda:0", wanted="fp32", graphs=("main",), **artifact):
    entries = dict.fromkeys(graphs, "engine.plan")
    one = Artifact("trt", entries, **artifact)
    card = ModelCard("test", "test", "test", (one,))
    return TrtBackend().refuse(card, one, Plan(device, wanted))


@pytest.fixture
def with_installed(monkeypatch):
    """Say that this TensorRT is installed."""

    def with_installed(module, version, cuda=None):
        found = Installed(module, version, cuda)
        target = "inference_models_trt.backend.find_installed"
        monkeypatch.setattr(target, lambda hardware: found)

    return with_installed


@pytest.fixture
def derived(toy, tmp_path, rtx):
    """Derive the toy's engine as core would."""

    def derived(device="sm_89", batch=None, source=None):
        source = source or toy()
        folder = tmp_path / "derived"
        folder.mkdir(exist_ok=True)
        plan = Plan(device, "fp32", batch)
        architecture = ToyArchitecture(source)
        artifact = TrtBackend().derive(
            source, architecture, plan, folder, lambda what, share: None
        )
        return attrs.evolve(source, artifact=artifact, folder=folder)

    return derived


def test_the_hook_offers_the_backend():
    assert backends() == [TrtBackend]
    assert (TrtBackend.name, TrtBackend.aliases) == ("trt", ("tensorrt",))
    assert TrtBackend.derives == {"onnx": "trt"}


@pytest.mark.parametrize(
    "settings",
    [{"workspace": 0}, {"optimization_level": 6}, {"optimization_level": -1}],
    ids=str,
)
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(InvalidOption, match=r"is not a (whole )?number"):
        TrtBackend(**settings)


def test_gpus_that_the_installed_tensorrt_knows_are_devices(machine, with_installed):
    with_installed("tensorrt_rtx", "1.7.1.116", 13)
    machine((8, 9), (9, 0), (12, 0))

    assert TrtBackend().devices() == ["cuda:0", "cuda:2"]
    assert TrtBackend().targets() == ["cuda:0", "cuda:2", *KINDS]


def test_tensorrt_builds_for_the_gpus_that_are_here_alone(machine, with_installed):
    with_installed("tensorrt", "11.4.0.106", 13)
    machine((9, 0))

    assert TrtBackend().devices() == TrtBackend().targets() == ["cuda:0"]


@pytest.mark.parametrize(
    ("gpus", "cuda", "reason"),
    [
        ([], None, "no NVIDIA GPU is here; for one elsewhere, inference-models comp"),
        ([(9, 0)], (13, 0), "has no code for NVIDIA Test; pip install tensorrt-cu13"),
        ([(8, 9)], (12, 4), "is built for CUDA 13, and the driver supports CUDA 12.4"),
    ],
    ids=str,
)
def test_why_nothing_runs_here_is_told(machine, with_installed, gpus, cuda, reason):
    with_installed("tensorrt_rtx", "1.7.1.116", 13)
    machine(*gpus, cuda=cuda)
    with pytest.raises(Unavailable, match=reason):
        TrtBackend().devices()

    assert TrtBackend().targets() == KINDS


def test_without_cuda_core_nothing_runs(machine, with_installed, monkeypatch):
    with_installed("tensorrt_rtx", "1.7.1.116", 13)
    machine((8, 9))
    target = "inference_models_trt.backend.find_spec"
    monkeypatch.setattr(target, lambda name: None)
    with pytest.raises(Unavailable, match="pip install cuda-core cuda-bindings"):
        TrtBackend().devices()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"graphs": ("encoder", "decoder")}, "this one has 2"),
        ({"wanted": "fp16"}, "the engine is fp32 .* choose quantization='fp32'"),
        ({"needs": {"compute_capability": "8.9", "tensorrt_rtx": "1.7.1.116"}}, None),
        ({"needs": {"compute_capability": "8.6"}}, "NVIDIA Test has 8.9"),
        ({"needs": {"compute_capability": "8.6"}, "device": "sm_86"}, None),
        ({"needs": {"compute_capability": "8.6"}, "device": "sm_89"}, "not for 8.9"),
        ({"needs": {"tensorrt_rtx": "1.6.0.1"}, "device": "sm_89"}, "1.7.1.116 is in"),
        ({"needs": {"tensorrt_rtx": "1.6.0.1"}}, "TensorRT for RTX 1.7.1.116 is inst"),
        ({"needs": {"cuda_driver": 12}}, "driver of CUDA 12, and this one has 13"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    machine, with_installed, fields, reason
):
    with_installed("tensorrt_rtx", "1.7.1.116", 13)
    machine((8, 9))
    found = refusal(**fields)

    assert (found is None) == (reason is None)
    assert reason is None or re.search(reason, found)


def test_an_engine_says_what_it_needs_and_takes(derived, machine):
    bundle = derived()
    version = find_installed(machine()).version

    assert bundle.artifact.format == "trt"
    assert bundle.artifact.graphs == {"main": "engine.plan"}
    assert bundle.artifact.batch == (1, 8, 16)
    assert bundle.artifact.needs == {
        "tensorrt_rtx": version,
        "compute_capability": "8.9",
    }
    assert bundle.artifact.files[0].size == bundle.path().stat().st_size


def test_the_batches_are_those_that_are_asked_for(derived):
    assert derived(batch=(2, 3, 5)).artifact.batch == (2, 3, 5)


def test_a_fixed_batch_stays(derived, toy):
    source = toy(batch=2)

    assert derived(batch=(1, 4, 8), source=source).artifact.batch == (2, 2, 2)


def test_names_and_config_of_the_source_stay(derived, toy):
    source = toy(rename={"#0": "output"}, config={"a": 1}, precision="fp16")
    artifact = derived(source=source).artifact

    assert artifact.rename == {"#0": "output"}
    assert artifact.config == {"a": 1}
    assert artifact.precision == "fp16"


def test_a_device_that_is_no_kind_of_gpu_is_refused(derived):
    with pytest.raises(InvalidOption, match="device 'abacus' is neither"):
        derived("abacus")


def test_an_engine_is_inspected_without_being_run(derived):
    facts = TrtBackend().inspect(derived().path())

    assert facts == Facts("trt", {}, {"tensorrt_rtx": "1.7.1"})


def test_here_it_says_so_where_the_driver_is_missing(derived):
    pytest.importorskip("cuda.core")
    bundle = derived()
    with pytest.raises(Unavailable, match="cuda-core does not reach cuda:0"):
        TrtBackend().open(bundle, ToyArchitecture(bundle), Plan("cuda:0", "fp32"))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", "is no engine of TensorRT"),
        (b"<!DOCTYPE html>" * 9, "is no engine of TensorRT"),
        (b"ftrt" + bytes(20) + bytes([10, 3, 0]), "for TensorRT 10.3.0, and"),
        (b"vtrt" + bytes(20) + bytes([1, 2, 0]), "for TensorRT for RTX 1.2.0, and"),
    ],
    ids=["empty", "a web page", "another TensorRT", "another version"],
)
def test_what_it_does_not_read_is_not_opened(derived, start, reason):
    bundle = derived()
    bundle.path().write_bytes(start)
    with pytest.raises(InvalidWeights, match=reason):
        TrtBackend().open(bundle, ToyArchitecture(bundle), Plan("cuda:0", "fp32"))


@pytest.mark.parametrize("name", ["a.onnx", "a.bin"])
def test_files_of_others_are_not_inspected(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"vtrt" + bytes(100))

    assert TrtBackend().inspect(path) is None


@pytest.mark.parametrize("content", [b"", b"vtrt", bytes(100), b"\x89PNG" + bytes(90)])
def test_other_content_is_no_engine(tmp_path, content):
    path = tmp_path / "model.engine"
    path.write_bytes(content)

    assert TrtBackend().inspect(path) is None
