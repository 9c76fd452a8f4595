"""With a runtime or a plugin really absent, the rest works and says what to type.

Each test runs in a process whose site-packages is this environment's, without the named
distributions: their files and their metadata are not there.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest

from inference_models.negotiation import hints
from inference_models.registry import installed

SITE = Path(sysconfig.get_path("purelib"))


def entries_of(name: str) -> set[str]:
    """What a distribution put at the top of site-packages."""
    return {file.parts[0] for file in distribution(name).files or ()}


def without(folder: Path, *names: str) -> Path:
    """A site-packages that links to everything here but the named distributions."""
    left_out = {entry for name in names for entry in entries_of(name)} - {".."}
    folder.mkdir()
    for entry in SITE.iterdir():
        if entry.name not in left_out:
            (folder / entry.name).symlink_to(entry)
    return folder


def run(site: Path, code: str, cards: Path, tmp_path: Path) -> dict:
    """Run code that prints one JSON value, against that site-packages alone."""
    start = f"import json, site; site.addsitedir({str(site)!r})\n"
    result = subprocess.run(
        [sys.executable, "-S", "-c", start + code],
        env={
            "INFERENCE_MODELS_CARDS": str(cards),
            "INFERENCE_MODELS_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def tensorrt() -> list[str]:
    """The distributions of TensorRT that are here."""
    names = (str(found.metadata["Name"]) for found in distributions())
    return [name for name in names if name.startswith("tensorrt")]


LOAD = """
from inference_models import AutoModel, NoBackend
try:
    model = AutoModel.from_pretrained("resnet18")
    print(json.dumps({"backend": model.backend}))
except NoBackend as error:
    print(json.dumps({"error": str(error)}))
"""

EXPLAIN = """
import sys
from inference_models import AutoModel
explanation = AutoModel.explain("resnet18")
runtimes = {"torch", "onnxruntime", "transformers", "cv2", "tensorrt_rtx", "cuda"}
loaded = sorted(runtimes & set(sys.modules))
rows = [[c.backend, c.verdict, c.reason] for c in explanation.candidates]
print(json.dumps({"loaded": loaded, "rows": rows, "text": str(explanation)}))
"""


@pytest.fixture
def onnx_cards(resnet18_cards, tmp_path):
    """The card folder with an ONNX artifact alone."""
    from inference_models import AutoModel

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
        model = AutoModel.from_pretrained("resnet18", backend="onnx")
    folder = tmp_path / "onnx"
    folder.mkdir()
    source = model._loaded.bundle.path("main")
    (folder / "resnet18.onnx").write_bytes(source.read_bytes())
    card = json.loads((resnet18_cards / "resnet18.json").read_text("utf-8"))
    card["artifacts"] = [{"format": "onnx", "graphs": {"main": "resnet18.onnx"}}]
    (folder / "resnet18.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_explain_imports_no_runtime(resnet18_cards, tmp_path):
    site = without(tmp_path / "site")

    found = run(site, EXPLAIN, resnet18_cards, tmp_path)

    assert found["loaded"] == []
    assert [row[:2] for row in found["rows"]] == [
        ["torch", "runs"],
        ["onnx", "buildable"],
        ["hf", "refused"],
        ["trt", "refused"],
    ]


def test_onnx_artifact_runs_without_torch(onnx_cards, tmp_path):
    site = without(tmp_path / "site", "torch")

    assert run(site, LOAD, onnx_cards, tmp_path) == {"backend": "onnx"}
    rows = run(site, EXPLAIN, onnx_cards, tmp_path)["rows"]
    assert sorted(row[:2] for row in rows) == [
        ["hf", "refused"],
        ["onnx", "runs"],
        ["torch", "refused"],
        ["trt", "refused"],
    ]


def test_torch_artifact_without_torch_says_what_to_type(resnet18_cards, tmp_path):
    site = without(tmp_path / "site", "torch")

    error = run(site, LOAD, resnet18_cards, tmp_path)["error"]

    assert "pip install" in error
    assert "torch" in error


def test_torch_artifact_runs_without_onnxruntime(resnet18_cards, tmp_path):
    site = without(tmp_path / "site", "onnxruntime")

    assert run(site, LOAD, resnet18_cards, tmp_path) == {"backend": "torch"}


def test_onnx_artifact_without_onnxruntime_says_what_to_type(onnx_cards, tmp_path):
    site = without(tmp_path / "site", "onnxruntime")

    error = run(site, LOAD, onnx_cards, tmp_path)["error"]

    assert 'pip install "inference-models-onnx[cpu]"' in error


def test_without_runtimes_all_are_refused_with_what_to_type(resnet18_cards, tmp_path):
    site = without(tmp_path / "site", "torch", "onnxruntime", *tensorrt())

    found = run(site, EXPLAIN, resnet18_cards, tmp_path)
    error = run(site, LOAD, resnet18_cards, tmp_path)["error"]

    assert {row[0]: row[1] for row in found["rows"]} == {
        "hf": "refused",
        "onnx": "refused",
        "torch": "refused",
        "trt": "refused",
    }
    assert all("pip install" in row[2] for row in found["rows"])
    assert "pip install inference-models-torch" in error
    assert 'pip install "inference-models-onnx[cpu]"' in error


def test_without_both_plugins_the_formats_distribution_is_named(
    resnet18_cards, tmp_path
):
    site = without(tmp_path / "site", "inference-models-torch", "inference-models-onnx")

    error = run(site, LOAD, resnet18_cards, tmp_path)["error"]

    assert "no installed plugin offers format 'torch'" in error
    assert "pip install inference-models-torch" in error


def test_without_the_pack_its_distribution_is_named(resnet18_cards, tmp_path):
    site = without(tmp_path / "site", "inference-models-resnet")

    error = run(site, LOAD, resnet18_cards, tmp_path)["error"]

    assert "pip install inference-models-resnet" in error


def test_suffixes_of_absent_backends_are_known_as_they_themselves_tell_them():
    told = {
        suffix: form
        for cls in installed().backends.values()
        for suffix in cls.suffixes
        for form in cls.formats
    }

    assert told == hints._hints()["suffix"]
