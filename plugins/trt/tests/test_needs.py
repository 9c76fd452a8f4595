"""On which machines an engine runs, and why not on others."""

from __future__ import annotations

import pytest

from inference_models.hardware import Gpu, Hardware
from inference_models_trt.installed import Installed
from inference_models_trt.needs import (
    brings_host_code,
    needs_of,
    refuse_kind,
    refuse_needs,
)

T4 = Gpu("Tesla T4", (7, 5), 2**34)
ADA = Gpu("NVIDIA L4", (8, 9), 2**34)
CORRECT = "correct the card"
HERE = "and TensorRT 10.13.0.35 is installed"
SERVER = Hardware(8, (ADA,), (12, 4))
ORIN = Hardware(8, (ADA,), (12, 6), "NVIDIA Jetson Orin NX", "36.4.3")
TRT = Installed("tensorrt", "10.13.0.35", 12)
RTX = Installed("tensorrt_rtx", "1.7.1.116", 13)


def refused(needs, installed=TRT, gpu=ADA, hardware=SERVER):
    return refuse_needs(needs, installed, gpu, hardware)


@pytest.mark.parametrize("installed", [TRT, RTX], ids=lambda i: i.module)
def test_what_is_built_here_runs_here(installed):
    assert refused(needs_of(installed, (8, 9), ADA, SERVER), installed) is None


@pytest.mark.parametrize("gpu", [ADA, Gpu("NVIDIA GeForce RTX 4090", (8, 9), 2**34)])
def test_what_rtx_builds_for_elsewhere_runs_on_any_gpu_of_its_kind(gpu):
    needs = needs_of(RTX, (8, 9), None, Hardware(2))

    assert refused(needs, RTX, gpu) is None
    assert needs == {"tensorrt_rtx": "1.7.1.116", "compute_capability": "8.9"}


def test_what_tensorrt_builds_is_for_one_model_of_gpu():
    other = Gpu("NVIDIA GeForce RTX 4090", (8, 9), 2**34)
    reason = refused(needs_of(TRT, (8, 9), ADA, SERVER), gpu=other)

    assert reason == (
        "the engine is for NVIDIA L4, and the GPU here is NVIDIA GeForce RTX 4090"
    )


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ({}, None),
        ({"tensorrt": "10.13.0.35"}, None),
        ({"tensorrt": "10.13.0"}, None),
        (
            {"tensorrt": "10.3.0.17"},
            f"the engine is for TensorRT 10.3.0.17, {HERE}",
        ),
        (
            {"tensorrt": "10.13.0.3"},
            f"the engine is for TensorRT 10.13.0.3, {HERE}",
        ),
        (
            {"tensorrt_rtx": "1.7.1.116"},
            f"the engine is for TensorRT for RTX 1.7.1.116, {HERE}",
        ),
        ({"tensorrt": "10.3.0.17", "forward_compatible": True}, None),
        (
            {"tensorrt": "10.14.0.1", "forward_compatible": True},
            f"the engine is for TensorRT 10.14.0.1, {HERE}",
        ),
        (
            {"tensorrt": "9.3.0.1", "forward_compatible": True},
            f"the engine is for TensorRT 9.3.0.1, {HERE}",
        ),
        (
            {
                "tensorrt": "10.3.0.17",
                "forward_compatible": True,
                "lean_runtime_excluded": True,
            },
            f"the engine is for TensorRT 10.3.0.17, {HERE}",
        ),
        ({"tensorrt": "later than all"}, "the engine is for TensorRT later than all, "),
        ({"compute_capability": "8.9"}, None),
        (
            {"compute_capability": "8.6"},
            "the engine is for compute capability 8.6, and NVIDIA L4 has 8.9",
        ),
        ({"device": "nvidia-l4"}, None),
        (
            {"device": "tesla-t4"},
            "the engine is for tesla-t4, and the GPU here is NVIDIA L4",
        ),
        ({"device": "tesla-t4", "same_compute_capability": True}, None),
        ({"cuda_driver": 12}, None),
        (
            {"cuda_driver": 13},
            "the engine is for a driver of CUDA 13, and this one has 12",
        ),
        ({"machine": "gpu-server"}, None),
        (
            {"machine": "jetson"},
            "the engine is for a jetson, and this machine is none",
        ),
        ({"l4t": "36.4.3"}, None),
    ],
    ids=str,
)
def test_each_need_is_met_or_told(needs, reason):
    found = refused(needs)

    assert found == reason or (reason and found.startswith(reason))


@pytest.mark.parametrize("key", ["tensorrt", "tensorrt_rtx", "device", "l4t"])
@pytest.mark.parametrize("value", [10, ["10"], {"a": "b"}, True], ids=repr)
def test_a_need_that_is_no_text_is_told(key, value):
    reason = refused({key: value}, hardware=ORIN)

    assert reason == f"its card needs {key!r} {value!r}, which is no text; {CORRECT}"
    assert refuse_kind({key: value}, TRT, (8, 9)) == reason


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        ("36.4.3", None),
        ("36.4.0", None),
        ("35.3.1", "the engine is for L4T 35.3.1, and this one is 36.4.3"),
    ],
)
def test_a_jetson_takes_engines_of_its_release(release, reason):
    needs = {"machine": "jetson", "l4t": release}

    assert refused(needs, hardware=ORIN) == reason


def test_a_jetson_takes_none_of_servers():
    assert "for a gpu-server" in refused({"machine": "gpu-server"}, hardware=ORIN)


@pytest.mark.parametrize(
    ("needs", "brings"),
    [
        ({}, False),
        ({"forward_compatible": "yes"}, False),
        ({"forward_compatible": True}, True),
        ({"forward_compatible": True, "lean_runtime_excluded": True}, False),
    ],
    ids=str,
)
def test_host_code_is_for_engines_that_say_so(needs, brings):
    assert brings_host_code(needs) == brings
