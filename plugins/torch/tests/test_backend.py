"""What the backend says of itself and of this machine."""

import logging
import pickle
import subprocess
import sys

import attrs
import pytest

from inference_models import (
    Artifact,
    Backend,
    File,
    InvalidOption,
    ModelCard,
    Operations,
    Plan,
    Unavailable,
)
from inference_models.hardware import Gpu, Hardware
from inference_models.lending import operations_of
from inference_models.registry import installed
from inference_models_torch import TorchBackend, backend, backends
from inference_models_torch.installed import Installed, find_installed, read_version

AMPERE = Hardware(cpus=8, gpus=(Gpu("A100", (8, 0), 2**30),) * 2, cuda=(13, 0))
TURING = Hardware(cpus=8, gpus=(Gpu("T4", (7, 5), 2**30),), cuda=(12, 4))
SAFE = Artifact("torch", {"main": "a.safetensors"})


def in_new_process(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def machine(monkeypatch, hardware, version="2.13.0", cuda="12.8"):
    monkeypatch.setattr(backend.hardware, "detect", lambda: hardware)
    monkeypatch.setattr(backend, "find_installed", lambda: Installed(version, cuda))


def refusal(artifact, precision="fp32", device="cpu"):
    card = ModelCard("a", "tiny", "classification", (artifact,))
    return TorchBackend().refuse(card, artifact, Plan(device, precision))


def test_importing_listing_and_asking_devices_imports_no_torch():
    answer = in_new_process(
        "import sys, inference_models_torch as plugin\n"
        "backend = plugin.backends()[0]()\n"
        "assert 'cpu' in backend.devices()\n"
        "print('torch' in sys.modules)"
    )

    assert answer.strip() == "False"


def test_is_found_by_its_hook():
    assert [TorchBackend] == backends()


def test_settings_survive_pickling():
    settings = TorchBackend(threads=2, channels_last=False)

    assert settings == pickle.loads(pickle.dumps(settings))


def test_refuses_no_threads():
    with pytest.raises(InvalidOption, match="threads 0 is not a whole number above 0"):
        TorchBackend(threads=0)


def test_reads_the_version_that_torch_reports():
    import torch

    assert Installed(torch.__version__, torch.version.cuda) == find_installed()


def test_reads_the_cuda_version_of_a_gpu_build(tmp_path):
    path = tmp_path / "version.py"
    path.write_text("__version__ = '2.10.0+cu128'\ncuda: Optional[str] = '12.8'\n")

    assert Installed("2.10.0+cu128", "12.8") == read_version(path)


def test_says_what_to_type_where_torch_is_missing(monkeypatch):
    monkeypatch.setattr("inference_models_torch.installed.find_spec", lambda name: None)

    with pytest.raises(Unavailable, match="pip install inference-models-torch"):
        TorchBackend().devices()


def test_lists_gpus_first(monkeypatch):
    machine(monkeypatch, AMPERE)

    assert TorchBackend().devices() == ["cuda:0", "cuda:1", "cpu"]


def test_lists_apples_gpu_last(monkeypatch):
    machine(monkeypatch, Hardware(cpus=8, apple_silicon=True), cuda=None)

    assert TorchBackend().devices() == ["cpu", "mps"]


class Borrower(Backend):
    """A backend of a GPU, without operations of its own."""

    name, formats = "borrower", ("borrowed",)

    def devices(self):
        return ["cuda:0", "cpu"]

    def open(self, bundle, architecture, plan):
        raise NotImplementedError


def test_lends_its_operations_to_others_on_a_gpu(monkeypatch):
    from inference_models_torch.operations import TorchOperations

    machine(monkeypatch, AMPERE)
    monkeypatch.setattr(TorchBackend, "ready", lambda self, device: None)
    lent = operations_of(Borrower(), "cuda:0", installed())

    assert type(lent) is TorchOperations


def test_a_gpu_that_was_promised_and_is_not_reached_is_warned_of(monkeypatch, caplog):
    machine(monkeypatch, AMPERE)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    caplog.set_level(logging.WARNING, "inference_models")

    assert type(operations_of(Borrower(), "cuda:0", installed())) is Operations
    assert "prepared on the CPU for cuda:0: torch" in caplog.text


def test_has_no_operations_where_torch_does_not_reach_the_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(Unavailable, match="cannot use 'cuda:0'; try python"):
        TorchBackend().operations("cuda:0")


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_lists_no_gpu_that_the_build_cannot_reach(monkeypatch, cuda):
    machine(monkeypatch, TURING, cuda=cuda)

    assert TorchBackend().devices() == ["cpu"]


@pytest.mark.parametrize(
    ("hardware", "own", "device", "expected"),
    [
        (AMPERE, "fp32", "cuda:1", ("fp16", "bf16", "fp32")),
        (AMPERE, "bf16", "cuda:0", ("bf16", "fp16", "fp32")),
        (TURING, "fp32", "cuda:0", ("fp16", "fp32")),
        (AMPERE, "fp16", "cpu", ("fp32", "bf16")),
        (AMPERE, "fp16", "mps", ("fp16",)),
        (AMPERE, "int8", "cpu", ("int8",)),
    ],
)
def test_offers_precisions_best_first(monkeypatch, hardware, own, device, expected):
    machine(monkeypatch, hardware)
    artifact = attrs.evolve(SAFE, precision=own)

    assert expected == TorchBackend().precisions(artifact, device)


INDEX = "https://download.pytorch.org/whl"
COMMAND = f"pip uninstall -y torch, then pip install torch --index-url {INDEX}"


def one_gpu(capability, cuda, **more):
    return Hardware(8, (Gpu("H200", capability, 2**37),), cuda, **more)


@pytest.mark.parametrize(
    ("capability", "driver", "build"),
    [
        ((9, 0), (13, 0), "cu130"),
        ((7, 5), (13, 2), "cu130"),
        ((7, 0), (13, 0), "cu126"),
        ((9, 0), (12, 8), "cu126"),
        ((9, 0), (12, 2), "cu126"),
        ((12, 0), (12, 8), "cu128"),
        ((12, 0), (13, 0), "cu130"),
    ],
)
def test_without_cuda_it_advises_the_build_for_gpu_and_driver(
    monkeypatch, capability, driver, build
):
    machine(monkeypatch, one_gpu(capability, driver), "2.13.0+cpu", None)
    (sentence,) = TorchBackend().advice()

    assert sentence == (
        "torch 2.13.0+cpu has no code for the NVIDIA GPU here (H200); "
        f"{COMMAND}/{build}"
    )


def test_for_newer_cuda_than_the_drivers_it_advises_another_build(monkeypatch):
    machine(monkeypatch, TURING, "2.13.0+cu130", "13.0")
    (sentence,) = TorchBackend().advice()

    assert sentence == (
        "torch 2.13.0+cu130 is built for CUDA 13.0, and the driver here supports 12.4; "
        f"update the driver, or {COMMAND}/cu126"
    )


@pytest.mark.parametrize("cuda", [None, "12.8"])
def test_no_build_suits_a_driver_that_is_too_old(monkeypatch, cuda):
    machine(monkeypatch, one_gpu((7, 0), (11, 8)), cuda=cuda)
    (sentence,) = TorchBackend().advice()

    assert sentence.endswith("; update the driver to one for CUDA 12.6 or newer")


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_on_a_jetson_it_advises_the_build_for_jetson(monkeypatch, cuda):
    machine(monkeypatch, one_gpu((8, 7), (12, 6), jetson="Orin"), cuda=cuda)
    (sentence,) = TorchBackend().advice()

    assert "; install NVIDIA's build for Jetson, https://docs.nvidia.com/" in sentence
    assert "pip" not in sentence


@pytest.mark.parametrize(
    ("hardware", "cuda"), [(AMPERE, "12.8"), (AMPERE, "13.0"), (Hardware(8), None)]
)
def test_it_advises_nothing_where_no_gpu_is_missed(monkeypatch, hardware, cuda):
    machine(monkeypatch, hardware, cuda=cuda)

    assert list(TorchBackend().advice()) == []


def test_refuses_nothing_in_a_safetensors_file():
    assert refusal(SAFE) is None


def test_refuses_int8():
    assert "not int8" in refusal(SAFE, "int8")


def test_refuses_adapters():
    assert "'other'" in refusal(attrs.evolve(SAFE, base="other"))


def test_refuses_a_file_it_cannot_read():
    assert "'a.bin' is none of" in refusal(Artifact("torch", {"main": "a.bin"}))


@pytest.mark.parametrize("version", ["2.9.1+cu128", "1.13.1", "2.5.0a0+git1"])
def test_refuses_pickles_with_a_torch_that_is_unsafe(monkeypatch, version):
    machine(monkeypatch, AMPERE, version=version)

    assert "torch>=2.10" in refusal(Artifact("torch", {"main": "a.pth"}))
    assert refusal(SAFE) is None


@pytest.mark.parametrize(
    ("file", "refused"),
    [
        (File("a.pth", ("https://x.y/a.pth",)), True),
        (File("a.pth", ("https://x.y/a.pth",), sha256="0" * 64), False),
        (File("a.pth", ("https://x.y/a.pth",), md5="0" * 32), False),
        (File("a.pth", ("file:///a.pth",)), False),
        (File("a.pth"), False),
    ],
)
def test_wants_a_hash_of_a_pickle_from_elsewhere(file, refused):
    reason = refusal(Artifact("torch", {"main": "a.pth"}, (file,)))

    assert refused == (reason is not None)


@pytest.mark.parametrize("graphs", [-1, True, 2.5, "8"])
def test_a_number_of_graphs_is_a_whole_one_from_0_up(graphs):
    with pytest.raises(InvalidOption, match=r"graphs .* is not a number from 0 up"):
        TorchBackend(graphs=graphs)
