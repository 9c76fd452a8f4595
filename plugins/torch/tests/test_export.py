"""Torch to ONNX: what ONNX Runtime makes of it is what torch makes of it."""

import hashlib
import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from inference_models import InvalidOption, MissingDependency, Plan
from inference_models_torch import TorchBackend, backend, export

pytest.importorskip("onnxscript")


def derive(bundle, architecture, folder, precision="fp32"):
    folder.mkdir()
    reports = []
    artifact = TorchBackend().derive(
        bundle,
        architecture,
        Plan("cpu", precision),
        folder,
        lambda what, share: reports.append((what, share)),
    )
    assert reports[-1][1] == 1.0
    return artifact


@pytest.fixture
def open_onnx():
    runtime = pytest.importorskip("onnxruntime")
    return lambda path: runtime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.02)])
def test_gives_what_torch_gives_for_any_batch(
    workshop, open_onnx, capfd, precision, tolerance
):
    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    artifact = derive(bundle, workshop.Tiny(bundle), folder, precision)
    session = open_onnx(folder / artifact.graphs["main"])

    for count in (1, 3, 8):
        batch = np.random.default_rng(count).random((count, 3, 32, 32), np.float32)
        (output,) = session.run(["output"], {"input": batch})
        assert np.float32 == output.dtype
        expected = workshop.reference(batch)
        np.testing.assert_allclose(output, expected, atol=tolerance)
    assert tuple(capfd.readouterr()) == ("", "")


def test_the_callers_autocast_is_not_written(workshop, open_onnx):
    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    with torch.autocast("cpu", torch.bfloat16):
        artifact = derive(bundle, workshop.Tiny(bundle), folder)
    batch = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    (output,) = open_onnx(folder / artifact.graphs["main"]).run(None, {"input": batch})

    np.testing.assert_allclose(output, workshop.reference(batch), atol=1e-4)


def test_threads_that_export_at_the_same_time_leave_the_process_as_it_was(workshop):
    bundle = workshop.bundle(workshop.safetensors())
    state = sys.stdout, warnings.filters, logging.getLogger("torch").level

    def export(number):
        return derive(bundle, workshop.Tiny(bundle), workshop.folder / str(number))

    with ThreadPoolExecutor(3) as pool:
        artifacts = list(pool.map(export, range(3)))

    assert all(each.graphs == {"main": "model.onnx"} for each in artifacts)
    assert state == (sys.stdout, warnings.filters, logging.getLogger("torch").level)


def test_half_precision_leaves_named_modules_alone(workshop):
    onnx = pytest.importorskip("onnx")
    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    derive(bundle, workshop.Tiny(bundle), folder, "fp16")
    graph = onnx.load(folder / "model.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}

    assert kinds["module.block.0.weight"] == onnx.TensorProto.FLOAT
    assert kinds["module.head.weight"] == onnx.TensorProto.FLOAT16


def test_what_is_too_large_for_one_file_keeps_its_weights_beside(
    workshop, open_onnx, monkeypatch
):
    monkeypatch.setattr("inference_models_torch.export._SINGLE_FILE", 1000)
    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    artifact = derive(bundle, workshop.Tiny(bundle), folder)
    names = sorted(path.name for path in folder.iterdir())
    batch = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    (output,) = open_onnx(folder / "model.onnx").run(None, {"input": batch})

    assert [file.name for file in artifact.files] == names
    assert len(names) == 2
    np.testing.assert_allclose(output, workshop.reference(batch), atol=1e-4)


def test_describes_what_it_wrote(workshop):
    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    artifact = derive(bundle, workshop.Tiny(bundle), folder)
    content = (folder / "model.onnx").read_bytes()
    (file,) = artifact.files

    assert (
        artifact.format,
        artifact.precision,
        artifact.batch,
    ) == ("onnx", "fp32", None)
    assert artifact.graphs == {"main": "model.onnx"}
    assert artifact.needs == {"opset": 20}
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (
        file.size,
        file.sha256,
    )
    assert b"conftest.py" not in content


def test_leaves_every_named_size_free_and_renames_states(workshop, open_onnx):
    path = workshop.safetensors({"nothing": torch.zeros(1)})
    bundle = workshop.bundle(path, "counting", "step")
    counting = workshop.Counting(bundle)
    counting.weights = lambda graph, tensors: {}
    folder = workshop.folder / "onnx"
    artifact = derive(bundle, counting, folder)
    session = open_onnx(folder / artifact.graphs["step"])
    given = {
        "tokens": np.arange(15).reshape(3, 5),
        "state.total": np.ones((3, 1), np.int64),
    }

    assert artifact.rename == {"next.state.total": "state.total"}
    (total,) = session.run(["next.state.total"], given)
    assert total.tolist() == [[11], [36], [61]]


def test_names_of_tensors_may_be_those_that_torch_gives_inside(workshop, open_onnx):
    class Named(workshop.Tiny):
        def signature(self, graph):
            (image,), (output,) = (d.values() for d in super().signature(graph))
            return {"relu": image}, {"linear": output}

    bundle = workshop.bundle(workshop.safetensors())
    folder = workshop.folder / "onnx"
    derive(bundle, Named(bundle), folder)
    batch = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    (output,) = open_onnx(folder / "model.onnx").run(["linear"], {"relu": batch})

    np.testing.assert_allclose(output, workshop.reference(batch), atol=1e-4)


def test_says_what_to_type_where_onnx_is_missing(workshop, monkeypatch):
    bundle = workshop.bundle(workshop.safetensors())
    monkeypatch.setattr(backend, "find_spec", lambda name: None)

    with pytest.raises(MissingDependency, match=r"inference-models-torch\[export\]"):
        derive(bundle, workshop.Tiny(bundle), workshop.folder / "onnx")


def test_writes_no_bfloat16(workshop):
    bundle = workshop.bundle(workshop.safetensors())

    with pytest.raises(InvalidOption, match="not 'bf16'"):
        derive(bundle, workshop.Tiny(bundle), workshop.folder / "onnx", "bf16")


def test_an_export_leaves_other_threads_their_output_and_their_warnings(
    workshop, monkeypatch, capsys, recwarn
):
    write, bundle = export._write, workshop.bundle(workshop.safetensors())

    def watched(*args):
        print("an access")
        warnings.warn("of a service", stacklevel=1)
        write(*args)

    monkeypatch.setattr(export, "_write", watched)
    derive(bundle, workshop.Tiny(bundle), workshop.folder / "onnx")

    assert capsys.readouterr().out == "an access\n"
    assert [str(each.message) for each in recwarn] == ["of a service"]
