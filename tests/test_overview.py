"""The code blocks of docs/getting-started/quick-overview.md run as they stand.

Each runs in a process of its own, unchanged, with a card folder that has weights for
its ids. Two things that the blocks expect are supplied where they are missing, by a
`sitecustomize` beside the block: `torchvision.io.read_image`, since torchvision cannot
be imported beside the CPU build of torch; and supervision's annotators, which take no
tensors, get the same picture as an array.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/getting-started/quick-overview.md"
GIVEN = "d31dde3d78ba4777bec970a4fa76d1e43bbf51b5cb4449d3715c86bf18c682b2"

READ_IMAGE = """
import sys, types

def read_image(path):
    import numpy, PIL.Image, torch
    picture = numpy.array(PIL.Image.open(path).convert("RGB"))
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()

torchvision, io = types.ModuleType("torchvision"), types.ModuleType("torchvision.io")
torchvision.io, io.read_image = io, read_image
sys.modules |= {"torchvision": torchvision, "torchvision.io": io}
"""

ANNOTATE_TENSORS = """
import supervision

annotate = supervision.BoxAnnotator.annotate

def annotate_array(self, scene, detections):
    array = scene.permute(1, 2, 0).numpy()[..., ::-1].copy()
    return annotate(self, array, detections)

supervision.BoxAnnotator.annotate = annotate_array
"""


def blocks() -> dict[tuple[str, str], str]:
    """Python blocks by their section and tab."""
    found = {}
    section = tab = ""
    lines = iter(DOCUMENT.read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith("##"):
            section, tab = line.strip("# "), ""
        elif match := re.match(r'=== "(.+)"', line):
            tab = match[1]
        elif line.strip().startswith("```python"):
            indent = len(line) - len(line.lstrip())
            code = []
            while not (line := next(lines)).strip().startswith("```"):
                code.append(line[indent:])
            found[section, tab] = "\n".join(code) + "\n"
    return found


BLOCKS = blocks()


@pytest.fixture
def run_block(run, folder, overview_cards):
    """Runs a block in `folder`, with what is supplied in a `sitecustomize`."""

    def run_code(code: str, supplied: str = "") -> str:
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(supplied, "utf-8")
        return run(
            code,
            folder,
            INFERENCE_MODELS_CARDS=overview_cards,
            PYTHONPATH=str(folder / "site"),
        )

    return run_code


@pytest.fixture
def folder(tmp_path, photos):
    (tmp_path / "path/to").mkdir(parents=True)
    names = {"image": "astronaut", "image1": "coffee", "image2": "chelsea"}
    for file, photo in names.items():
        picture = Image.fromarray(photos[photo][..., ::-1])
        picture.save(tmp_path / f"path/to/{file}.jpg", quality=95)
    return tmp_path


def changed_pixels(drawn: Path, original: Path) -> int:
    pictures = [np.asarray(Image.open(path)).astype(int) for path in (drawn, original)]
    return int((np.abs(pictures[0] - pictures[1]).max(axis=-1) > 100).sum())


def test_document_stands_as_it_was_given():
    assert hashlib.sha256(DOCUMENT.read_bytes()).hexdigest() == GIVEN


def test_extras_that_the_document_installs_are_there():
    named = re.search(r'"inference-models\[(.+)\]"', DOCUMENT.read_text("utf-8"))[1]
    offered = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)

    assert set(named.split(",")) <= set(offered)


def test_document_has_the_blocks_that_are_run_here():
    tabs = ("numpy", "torch.Tensor", "Batched")
    sections = ("Object Detection", "Image Classification", "Vision-Language Models")
    expected = {(section, tab) for section in sections for tab in tabs}

    assert expected | {("Automatic Backend Negotiation", "Batched")} == {
        (section, tab or "Batched") for section, tab in BLOCKS
    }


@pytest.mark.parametrize("tab", ["numpy", "torch.Tensor"])
def test_classification_block_prints_a_class(tab, run_block):
    code = BLOCKS["Image Classification", tab]

    assert re.fullmatch(
        r"Predicted class: .+ \(confidence: 0\.\d+\)\n",
        run_block(code, READ_IMAGE),
    )


def test_batched_classification_block_prints_a_class_an_image(run_block):
    code = BLOCKS["Image Classification", "Batched"]

    lines = run_block(code).splitlines()

    assert [line.partition(":")[0] for line in lines] == ["Image 0", "Image 1"]


@pytest.mark.parametrize("tab", ["numpy", "torch.Tensor"])
def test_vision_language_block_prints_an_answer(tab, run_block):
    shown = run_block(BLOCKS["Vision-Language Models", tab], READ_IMAGE)

    assert len(shown.splitlines()) == 1


def test_batched_vision_language_block_prints_an_answer_an_image(run_block):
    shown = run_block(BLOCKS["Vision-Language Models", "Batched"])

    assert len(shown.splitlines()) == 2


@pytest.mark.parametrize("backend", ["torch", "onnx"])
@pytest.mark.parametrize("tab", ["numpy", "torch.Tensor"])
def test_detection_block_draws_boxes(tab, backend, folder, run_block, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", backend)
    code = BLOCKS["Object Detection", tab]
    site = READ_IMAGE + ANNOTATE_TENSORS if tab == "torch.Tensor" else ""

    run_block(code, site)

    assert changed_pixels(folder / "output.jpg", folder / "path/to/image.jpg") > 500


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_batched_detection_block_draws_boxes_on_both_images(
    backend, folder, run_block, monkeypatch
):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", backend)

    run_block(BLOCKS["Object Detection", "Batched"])

    for number in (0, 1):
        original = folder / f"path/to/image{number + 1}.jpg"
        assert changed_pixels(folder / f"output_{number}.jpg", original) > 500
