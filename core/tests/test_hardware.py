"""Hardware facts, from the files that tell them."""

from __future__ import annotations

import ctypes
import os

import pytest

from inference_models import hardware
from inference_models.hardware import Gpu, Hardware, usable_cpus

V2 = "sys/fs/cgroup/cpu.max"
V1_QUOTA = "sys/fs/cgroup/cpu/cpu.cfs_quota_us"
V1_PERIOD = "sys/fs/cgroup/cpu/cpu.cfs_period_us"


@pytest.fixture
def root(tmp_path):
    """A file system of one's own, to write the kernel's files into."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path

    return write


def allowed():
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )


@pytest.mark.parametrize(
    "files",
    [
        {},
        {V2: "max 100000\n"},
        {V2: "100000000 100000\n"},
        {V2: "garbage"},
        {V2: ""},
        {V1_QUOTA: "-1\n", V1_PERIOD: "100000\n"},
        {V1_QUOTA: "100000\n"},
        {V1_QUOTA: "100000\n", V1_PERIOD: "0\n"},
    ],
    ids=str,
)
def test_without_a_quota_all_allowed_processors_are_usable(root, files):
    assert usable_cpus(root(files)) == allowed()


@pytest.mark.parametrize(
    "files",
    [
        {V2: "100000 100000\n"},
        {V2: "50000 100000\n"},
        {V2: "1000 100000\n"},
        {V1_QUOTA: "100000\n", V1_PERIOD: "100000\n"},
        {V1_QUOTA: "20000\n", V1_PERIOD: "100000\n"},
    ],
    ids=str,
)
def test_a_quota_of_up_to_one_processor_is_one(root, files):
    assert usable_cpus(root(files)) == 1


@pytest.mark.skipif(allowed() < 2, reason="needs two processors")
@pytest.mark.parametrize(
    "files",
    [{V2: "150000 100000\n"}, {V1_QUOTA: "150000\n", V1_PERIOD: "100000\n"}],
    ids=str,
)
def test_a_part_of_a_processor_counts_as_one(root, files):
    assert usable_cpus(root(files)) == 2


JETSON = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"


def test_a_jetson_is_known_by_its_files(root):
    files = {
        "etc/nv_tegra_release": JETSON,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    }

    assert hardware._jetson(root(files)) == ("NVIDIA Jetson Orin Nano", "36.4.3")


def test_a_jetson_without_a_name_is_still_one(root):
    assert hardware._jetson(root({"etc/nv_tegra_release": JETSON})) == (
        "Jetson",
        "36.4.3",
    )


@pytest.mark.parametrize("text", ["", "Ubuntu 24.04"])
def test_another_machine_is_no_jetson(root, text):
    files = {"etc/nv_tegra_release": text, "proc/device-tree/model": "Raspberry Pi 5"}

    assert hardware._jetson(root(files)) == (None, None)


def test_the_driver_is_looked_for_by_the_name_that_it_has_here(monkeypatch):
    names = []
    monkeypatch.setattr(ctypes, "CDLL", names.append)
    hardware.driver_library()

    assert names in (["libcuda.so.1"], ["nvcuda.dll"])


@pytest.mark.skipif(
    hardware.driver_library() is not None, reason="there is an NVIDIA driver here"
)
def test_without_a_driver_there_is_no_gpu():
    facts = hardware.detect()

    assert (facts.gpus, facts.cuda, facts.cuda_devices) == ((), None, [])


@pytest.mark.gpu
@pytest.mark.skipif(not hardware.detect().gpus, reason="there is no NVIDIA GPU here")
def test_a_gpu_is_described():
    gpu = hardware.detect().gpus[0]

    assert gpu.name.isprintable()
    assert (3, 0) <= gpu.compute_capability < (99, 0)
    assert gpu.memory > 1 << 28
    assert hardware.detect().cuda >= (10, 0)


def test_gpus_are_numbered():
    gpu = Gpu("A", (8, 0), 1 << 30)

    assert Hardware(cpus=1, gpus=(gpu, gpu)).cuda_devices == ["cuda:0", "cuda:1"]


def test_the_facts_are_gathered_once():
    assert hardware.detect() is hardware.detect()
    assert hardware.detect().cpus == usable_cpus()
