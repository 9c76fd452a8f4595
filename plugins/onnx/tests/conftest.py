"""Fixtures: ONNX files written from text, and sessions of them."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import onnx.parser
import pytest

from inference_models import Artifact, Bundle, ModelCard, Plan, hardware
from inference_models_onnx import OnnxBackend


@pytest.fixture
def save(tmp_path):
    """Write a graph, as text or as a model, into a folder of its own."""

    def save(graph, name="model.onnx", opset=17):
        if isinstance(graph, str):
            head = f'<ir_version: 8, opset_import: ["": {opset}]> '
            graph = onnx.parser.parse_model(head + graph)
        path = tmp_path / name
        path.write_bytes(graph.SerializeToString())
        return path

    return save


@pytest.fixture
def bundle():
    """A bundle around an ONNX file, or around several, by graph."""

    def bundle(path, more=None, **fields):
        paths = {"main": path, **(more or {})}
        graphs = {graph: path.name for graph, path in paths.items()}
        artifact = Artifact("onnx", graphs, **fields)
        card = ModelCard("test", "test", "test", (artifact,))
        return Bundle(card, artifact, path.parent)

    return bundle


@pytest.fixture
def start(save, bundle):
    """A session of a graph, given as text, as a model or as a file."""

    def start(graph, device="cpu", **settings):
        path = graph if isinstance(graph, Path) else save(graph)
        backend = OnnxBackend(**settings)
        return backend.open(bundle(path), None, Plan(device, "fp32"))["main"]

    return start


@pytest.fixture
def cuda():
    """The first GPU, where ONNX Runtime has code for it."""
    devices = OnnxBackend().devices()
    if "cuda:0" not in devices:
        pytest.skip(f"needs an NVIDIA GPU and onnxruntime-gpu; here is {devices}")
    return "cuda:0"


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs, and a driver for CUDA 12.8."""
    gpu = hardware.Gpu("Test", (9, 0), 2**34)
    machine = attrs.evolve(hardware.detect(), gpus=(gpu, gpu), cuda=(12, 8))
    monkeypatch.setattr(hardware, "detect", lambda: machine)


@pytest.fixture
def fake_runtime(tmp_path, monkeypatch):
    """An ONNX Runtime of files alone, found before the real one."""

    def install(distribution, version, cuda=None):
        capi = tmp_path / "site" / "onnxruntime" / "capi"
        capi.mkdir(parents=True, exist_ok=True)
        (capi.parent / "__init__.py").write_text("raise SystemExit('was imported')")
        facts = [f"package_name = {distribution!r}", f"__version__ = {version!r}"]
        if cuda is not None:
            facts.append(f"cuda_version = {cuda!r}")
            (capi / "libonnxruntime_providers_cuda.so").touch()
        (capi / "build_and_package_info.py").write_text("\n".join(facts))
        info = tmp_path / "site" / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
        monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install
