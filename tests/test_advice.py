"""A build for the CPU beside a GPU is told by explain and doctor, in a line each."""

from __future__ import annotations

import json

import attrs
import pytest

from inference_models import AutoModel, hardware
from inference_models.cli import doctor
from inference_models_onnx.installed import find_installed as find_onnxruntime
from inference_models_torch.installed import find_installed as find_torch

pytestmark = pytest.mark.skipif(
    find_torch().cuda is not None or find_onnxruntime().gpu,
    reason="needs builds of PyTorch and ONNX Runtime for the CPU",
)

TORCH = (
    f"torch {find_torch().version} has no code for the NVIDIA GPU here (NVIDIA H200); "
    "pip uninstall -y torch, then pip install torch "
    "--index-url https://download.pytorch.org/whl/cu130"
)
ONNX = (
    "the ONNX Runtime installed here has no code for NVIDIA GPUs; "
    "pip uninstall -y onnxruntime, then "
    'pip install "inference-models-onnx[cu13]"'
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, and a driver for CUDA 13."""
    h200 = hardware.Gpu("NVIDIA H200", (9, 0), 141 << 30)
    machine = attrs.evolve(hardware.detect(), gpus=(h200,), cuda=(13, 0))
    monkeypatch.setattr(hardware, "detect", lambda: machine)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU."""
    monkeypatch.setattr(hardware, "detect", lambda: hardware.Hardware(cpus=2))


@pytest.fixture
def cards(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card for each format; that of folders is read by a backend that has torch."""
    names = {"torch": "model.safetensors", "onnx": "model.onnx", "hf": "."}
    for form, name in names.items():
        card = {
            "id": f"in-{form}",
            "architecture": "resnet",
            "task": "classification",
            "artifacts": [{"format": form, "graphs": {"main": name}}],
        }
        (tmp_path / f"{form}.json").write_text(json.dumps(card), "utf-8")
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path))


def shown_by_doctor(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of advice that doctor prints."""
    doctor.command()
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith("advice")]


def test_doctor_has_one_line_for_each_runtime(gpu, capsys):
    assert shown_by_doctor(capsys) == [f"advice    {TORCH}", f"advice    {ONNX}"]


def test_doctor_advises_nothing_without_a_gpu(no_gpu, capsys):
    assert shown_by_doctor(capsys) == []


def test_explain_has_one_line_of_the_runtime_that_opens_the_model(gpu, cards):
    explanation = AutoModel.explain("in-onnx")

    assert explanation.advice == (ONNX,)
    assert str(explanation).splitlines().count(ONNX) == 1


@pytest.mark.parametrize("model", ["in-torch", "in-hf"])
def test_explain_has_one_line_of_each_runtime_that_could_run_the_model(
    gpu, cards, model
):
    explanation = AutoModel.explain(model)

    assert set(explanation.advice) == {ONNX, TORCH}
    assert sorted(str(explanation).splitlines()[-2:]) == [ONNX, TORCH]


def test_explain_says_it_once_where_a_refusal_says_it(gpu, cards):
    shown = str(AutoModel.explain("in-onnx", device="cuda"))

    assert shown.count(ONNX) == 1


@pytest.mark.parametrize("named", [{"device": "cpu"}, {"backend": "onnx"}], ids=str)
def test_explain_advises_nothing_that_was_not_wanted(gpu, cards, named):
    assert TORCH not in str(AutoModel.explain("in-torch", **named))


def test_explain_advises_nothing_without_a_gpu(no_gpu, cards):
    assert AutoModel.explain("in-torch").advice == ()


def test_nothing_is_said_where_a_model_is_loaded(
    gpu, resnet18_cards, monkeypatch, caplog, capsys
):
    caplog.set_level("DEBUG", "inference_models")
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
    model = AutoModel.from_pretrained("resnet18")

    assert model.device == "cpu"
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")
