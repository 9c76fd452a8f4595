"""Engines of real models: built for GPUs that are not here, kept, found and refused."""

from __future__ import annotations

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path

import attrs
import pytest

from inference_models import AutoModel, InvalidWeights, NoBackend, hardware
from inference_models_resnet import IMAGENET, imagenet_labels
from inference_models_resnet.network import ResNet
from inference_models_rfdetr.layout import SIZES
from inference_models_trt.installed import RTX_CAPABILITIES, find_installed

from .cards import resnet_card
from .checkpoints import rfdetr_state, save_checkpoint

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="needs tensorrt-rtx, which is here for Linux x86-64 alone",
)

KINDS = [f"sm_{major}{minor}" for major, minor in RTX_CAPABILITIES]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def onnx_cards(tmp_path_factory, resnet18_cards) -> Path:
    """A card folder with a resnet18 as an ONNX file in half precision."""
    folder = tmp_path_factory.mktemp("onnx_cards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
        wishes = {"backend": "onnx", "quantization": "fp16"}
        bundle = AutoModel.compile("resnet18", **wishes)
    path = folder / "resnet18.onnx"
    path.write_bytes(bundle.path().read_bytes())
    card = resnet_card(
        path,
        labels=imagenet_labels(),
        config={"depth": 18, "preprocessing": IMAGENET},
    )
    told = {"format": "onnx", "precision": "fp16", "rename": bundle.artifact.rename}
    card["artifacts"][0].update(told)
    (folder / "resnet18.json").write_text(json.dumps(card), "utf-8")
    return folder


@pytest.fixture
def resnet18(onnx_cards, monkeypatch) -> str:
    """The id of a resnet18 of random weights, whose card has an ONNX file."""
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(onnx_cards))
    return "resnet18"


@pytest.fixture
def machine(monkeypatch):
    """Say that this machine has a GPU of a compute capability."""

    def machine(*capability, driver=13):
        gpu = hardware.Gpu("NVIDIA Test", capability, 2**34)
        facts = attrs.evolve(hardware.detect(), gpus=(gpu,), cuda=(driver, 0))
        monkeypatch.setattr(hardware, "detect", lambda: facts)

    return machine


def compiled(model_id, device="sm_89", **wishes):
    return AutoModel.compile(model_id, backend="trt", device=device, **wishes)


def warnings_in(caplog) -> list[str]:
    """Warnings of the library's."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "inference_models"
    ]


def engines(cache) -> list[Path]:
    return sorted(cache.glob("derived/*/engine.plan"))


def row(model_id, **wishes):
    """What explain says of TensorRT."""
    rows = AutoModel.explain(model_id, **wishes).candidates
    return next(row for row in rows if row.backend == "trt" and row.format == "trt")


def test_an_engine_for_a_gpu_elsewhere_is_kept_with_what_it_needs(resnet18, cache):
    bundle = compiled(resnet18, batch_size=(1, 2, 4))
    facts = json.loads((bundle.folder / "artifact.json").read_bytes())

    assert bundle.artifact.precision == "fp16"
    assert bundle.artifact.batch == (1, 2, 4)
    assert bundle.artifact.needs == {
        "tensorrt_rtx": find_installed(hardware.detect()).version,
        "compute_capability": "8.9",
    }
    assert facts["judged"] is False
    assert [path.parent for path in engines(cache)] == [bundle.folder]


def test_what_is_built_is_not_built_again(resnet18, cache, caplog):
    caplog.set_level(logging.INFO, "inference_models")
    first = compiled(resnet18)
    caplog.clear()
    again = [compiled(resnet18), compiled(resnet18, batch_size=first.artifact.batch)]

    assert again == [first, first]
    assert "deriving" not in caplog.text


@pytest.mark.parametrize(
    "wishes",
    [{"device": "sm_86"}, {"batch_size": (1, 8, 32)}, {"batch_size": (1, 4, 8)}],
    ids=str,
)
def test_what_is_needed_otherwise_is_built_beside_it(resnet18, cache, wishes):
    compiled(resnet18)
    compiled(resnet18, **wishes)

    assert len(engines(cache)) == 2


def _truncate(folder):
    path = folder / "engine.plan"
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(folder):
    path = folder / "engine.plan"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _exchange(folder):
    manifest = folder / "artifact.json"
    text = manifest.read_text("utf-8").replace('"8.9"', '"8.6"')
    manifest.write_text(text, "utf-8")


def _remove(folder):
    (folder / "engine.plan").unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip, _exchange, _remove])
def test_a_damaged_engine_is_built_anew(resnet18, cache, caplog, damage):
    caplog.set_level(logging.INFO, "inference_models")
    before = compiled(resnet18)
    whole = before.path().read_bytes()
    damage(before.folder)
    caplog.clear()
    after = compiled(resnet18)

    assert "deriving trt" in caplog.text
    assert after.artifact.needs["compute_capability"] == "8.9"
    assert len(after.path().read_bytes()) == len(whole)


def test_a_gpu_machine_is_told_what_to_build_in_one_line(
    resnet18_cards, cache, machine, caplog, monkeypatch
):
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
    machine(8, 9)
    model = AutoModel.from_pretrained("resnet18")

    assert (model.backend, model.device) == ("torch", "cpu")
    assert warnings_in(caplog) == [
        (
            "resnet18 would run better on trt, cuda:0, which has to be built first: "
            "inference-models compile resnet18 --backend trt"
        )
    ]
    assert row("resnet18").verdict == "buildable"
    assert row("resnet18").reason == "can be derived, torch -> onnx -> trt"


def test_an_engine_for_another_gpu_is_a_reason_and_not_used(resnet18, cache, machine):
    compiled(resnet18, device="sm_86")
    machine(8, 9)

    assert row(resnet18).verdict == "buildable"
    assert row(resnet18).reason.endswith(
        "; what was built does not fit: the engine is for compute capability 8.6, and "
        "NVIDIA Test has 8.9"
    )


def test_an_engine_of_another_version_is_a_reason_and_not_used(
    resnet18, cache, machine, monkeypatch
):
    compiled(resnet18)
    machine(8, 9)
    newer = attrs.evolve(find_installed(hardware.detect()), version="1.8.0.1")
    target = "inference_models_trt.backend.find_installed"
    monkeypatch.setattr(target, lambda hardware: newer)

    assert row(resnet18).verdict == "buildable"
    assert "and TensorRT for RTX 1.8.0.1 is installed" in row(resnet18).reason


def test_an_engine_that_fits_runs_first_and_falls_back_with_one_warning(
    resnet18, cache, machine, caplog
):
    compiled(resnet18)
    machine(8, 9)
    assert row(resnet18).verdict == "runs"
    model = AutoModel.from_pretrained(resnet18)

    assert (model.backend, model.device) == ("onnx", "cpu")
    assert len(warnings_in(caplog)) == 1
    assert "because the better choice failed: trt on cuda:0: " in caplog.text
    assert "cuda-core does not reach cuda:0" in caplog.text


def test_an_engine_of_others_takes_the_users_word(resnet18, cache, tmp_path, machine):
    source = compiled(resnet18)
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "engine.plan").write_bytes(source.path().read_bytes())
    card = {
        "id": "theirs",
        "architecture": "resnet",
        "task": "classification",
        "labels": list(imagenet_labels()),
        "config": {"depth": 18, "preprocessing": IMAGENET},
        "artifacts": [
            {
                "format": "trt",
                "graphs": {"main": "engine.plan"},
                "files": [{"name": "engine.plan"}],
                "needs": dict(source.artifact.needs),
            }
        ],
    }
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    machine(8, 9)
    path = f"{folder}/"
    with pytest.raises(NoBackend, match="which is native code; allow_untrusted_pack"):
        AutoModel.from_pretrained(path)
    trusted = AutoModel.explain(path, allow_untrusted_packages=True).candidates

    assert [row.verdict for row in trusted if row.backend == "trt"] == ["runs"]
    machine(8, 6)
    with pytest.raises(NoBackend, match=r"is for compute capability 8\.9, and"):
        AutoModel.from_pretrained(path, allow_untrusted_packages=True)


def test_a_bare_engine_says_that_it_needs_a_card(resnet18, cache, tmp_path):
    path = tmp_path / "theirs.engine"
    path.write_bytes(compiled(resnet18).path().read_bytes())
    with pytest.raises(InvalidWeights, match=r"names no tensors; put a card\.json"):
        AutoModel.from_pretrained(path)


def test_without_a_gpu_engines_are_no_choice_and_nobody_is_warned(
    resnet18, cache, caplog
):
    model = AutoModel.from_pretrained(resnet18)
    rows = AutoModel.explain(resnet18).candidates

    assert model.backend == "onnx"
    assert warnings_in(caplog) == []
    assert [row.verdict for row in rows if row.backend == "trt"] == ["refused"]


FULL = """
import resource, signal
from inference_models import AutoModel, DownloadFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    AutoModel.compile("resnet18", backend="trt", device="sm_89")
except DownloadFailed as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX's")
def test_a_cache_without_room_says_what_to_do_and_keeps_nothing(
    resnet18, cache, run, tmp_path
):
    told = run(FULL, tmp_path)

    assert f"there is no room in the cache '{cache}'" in told
    assert "inference-models cache prune" in told
    assert not [path for path in cache.rglob("*") if path.suffix == ".plan"]
    assert list(cache.glob("partial/*")) == []


def test_ctrl_c_leaves_nothing_in_the_cache(resnet18, cache, monkeypatch):
    def stopped(report):
        def told(what, share):
            raise KeyboardInterrupt

        return told

    monkeypatch.setattr("inference_models_trt.backend.paced", stopped)
    with pytest.raises(KeyboardInterrupt):
        compiled(resnet18)

    assert engines(cache) == list(cache.glob("partial/*")) == []


def test_precisions_are_built_apart(resnet18_cards, cache, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
    for precision in ("fp32", "fp16"):
        compiled("resnet18", quantization=precision)
    half, full = sorted(path.stat().st_size for path in engines(cache))

    assert half < 0.6 * full


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of random weights, made once each: an RF-DETR's, or a ResNet's card."""
    folder = tmp_path_factory.mktemp("weights")

    def weights(name: str) -> Path:
        if name in SIZES:
            path = folder / f"{name}.pth"
            if not path.exists():
                save_checkpoint(path, rfdetr_state(name))
            return path
        path = folder / name / f"{name}.pth"
        if not path.exists():
            path.parent.mkdir()
            depth = int(name.removeprefix("resnet"))
            torch.save(dict(ResNet(depth, 1000).state_dict()), path)
            config = {"depth": depth, "preprocessing": IMAGENET}
            card = resnet_card(path, labels=imagenet_labels(), config=config)
            (path.parent / "card.json").write_text(json.dumps(card), "utf-8")
        return path.parent

    return weights


def named(name: str, weights) -> Path | str:
    """What a model's weights are loaded by: a file, or a folder with a card."""
    found = weights(name)
    return f"{found}/" if found.is_dir() else found


# What engines hold beside the numbers of the weights, and what stays in float32.
SHARES = {"fp32": (0.95, 1.4), "fp16": (0.47, 0.85)}


# The other segmenters are "seg-nano" with more layers, on larger images.
RFDETRS = [*(size for size in SIZES if not size.startswith("seg-")), "seg-nano"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", SHARES)
@pytest.mark.parametrize("name", ["resnet18", "resnet50", *RFDETRS])
def test_every_model_is_built_in_both_precisions_for_batches(weights, name, precision):
    wishes = {"quantization": precision, "batch_size": (1, 4, 8)}
    bundle = compiled(named(name, weights), **wishes)
    file = weights(name)
    file = file / f"{name}.pth" if file.is_dir() else file
    least, most = SHARES[precision]

    assert bundle.artifact.precision == precision
    assert bundle.artifact.batch == (1, 4, 8)
    assert least < bundle.path().stat().st_size / file.stat().st_size < most


def halved_for(kind: str, name: str, weights):
    """The engine of a model's ONNX file in half precision, for a kind of GPUs."""
    wishes = {"backend": "onnx", "quantization": "fp16"}
    source = AutoModel.compile(named(name, weights), **wishes)
    model_type = {"nano": "rfdetr-nano"}.get(name, name)
    return compiled(source.path(), device=kind, model_type=model_type)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet18", kind) for kind in KINDS] + [("nano", kind) for kind in KINDS[1:]],
)
def test_engines_are_built_for_every_compute_capability(weights, name, kind):
    bundle = halved_for(kind, name, weights)
    capability = f"{kind[3:-1]}.{kind[-1]}"

    assert bundle.artifact.needs["compute_capability"] == capability
    assert bundle.artifact.batch == (1, 8, 16)


@pytest.mark.slow
def test_what_tensorrt_lacks_for_a_kind_of_gpu_is_told(weights):
    # RF-DETR in half precision multiplies some matrices in float32 all the same.
    with pytest.raises(InvalidWeights, match=r"SM75.* FP32 GEMM is not supported"):
        halved_for("sm_75", "nano", weights)
