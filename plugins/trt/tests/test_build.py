"""Engines built of ONNX files, for GPUs that are not here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import onnx.parser
import pytest
from onnx import external_data_helper, numpy_helper

from inference_models import InvalidWeights, TensorSpec
from inference_models_trt.header import read_header
from inference_models_trt.installed import RTX_CAPABILITIES, find_installed

pytestmark = pytest.mark.usefixtures("rtx")


def parsed(text):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')


@pytest.fixture
def built(tmp_path):
    """Build a file for one capability; what was built, and where."""
    from inference_models_trt.build import BuildSettings, build

    def built(source, capability=(8, 9), told=None, **settings):
        settings = BuildSettings((1, 2, 4), capability, **settings)
        report = (told if told is not None else []).append
        target = tmp_path / "engine.plan"
        return build(source, target, settings, lambda *step: report(step)), target

    return built


@pytest.mark.parametrize("capability", RTX_CAPABILITIES, ids=str)
def test_an_engine_is_built_for_every_compute_capability(toy, built, capability):
    facts, path = built(toy().path(), capability=capability)

    assert facts.batch == (1, 2, 4)
    assert facts.inputs == {"input": TensorSpec("float32", ("batch", 3, 8, 8))}
    assert facts.outputs == {"output": TensorSpec("float32", ("batch", 3))}
    assert read_header(path).module == "tensorrt_rtx"


def test_engines_for_two_capabilities_differ(toy, built):
    contents = set()
    for capability in RTX_CAPABILITIES:
        _, path = built(toy().path(), capability=capability)
        contents.add(path.read_bytes())

    assert len(contents) == len(RTX_CAPABILITIES)


def test_the_header_names_the_version_that_is_installed(toy, built, machine):
    _, path = built(toy().path())
    version = find_installed(machine()).version

    assert version.startswith(f"{read_header(path).version}.")


def test_a_fixed_batch_stays_as_it_is(toy, built):
    facts, _ = built(toy(batch=3).path())

    assert facts.batch == (3, 3, 3)
    assert facts.inputs["input"].shape == (3, 3, 8, 8)


def test_types_are_those_of_the_file(save, built):
    graph = """graph (float[N, 2] x) => (float16[N, 2] y, int64[N, 2] z)
        { h = Cast<to = 10>(x)  y = Add(h, h)  z = Cast<to = 7>(x) }"""
    facts, _ = built(save(graph))
    found = {name: spec.dtype for name, spec in facts.outputs.items()}

    assert found == {"y": "float16", "z": "int64"}


def test_half_precision_makes_a_smaller_engine(save, built):
    graph = (
        "graph (float{0}[N, 2000] x) => (float{0}[N, 2000] y) {{ y = MatMul(x, w) }}"
    )
    weight = np.random.default_rng(0).standard_normal((2000, 2000))
    sizes = []
    for bits, dtype in (("", np.float32), ("16", np.float16)):
        model = parsed(graph.format(bits))
        tensor = numpy_helper.from_array(weight.astype(dtype), "w")
        model.graph.initializer.append(tensor)
        _, path = built(save(model))
        sizes.append(path.stat().st_size)

    assert sizes[1] < 0.6 * sizes[0]


def test_progress_never_falls_and_ends_at_one(toy, built):
    told = []
    built(toy().path(), told=told)
    shares = [share for _, share in told]

    assert len(told) > 10
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)


def test_what_a_report_raises_ends_the_build(long_build, tmp_path):
    from inference_models_trt.build import BuildSettings, build

    calls = []

    def report(what, share):
        calls.append(what)
        raise ZeroDivisionError

    target = tmp_path / "engine.plan"
    with pytest.raises(ZeroDivisionError):
        build(long_build, target, BuildSettings((1, 1, 1), (8, 9)), report)

    assert len(calls) < 20
    assert not target.exists()


@pytest.mark.parametrize("settings", [{"workspace": 2**28}, {"optimization_level": 0}])
def test_settings_of_a_build_are_taken(toy, built, settings):
    assert built(toy().path(), **settings)[1].stat().st_size > 1000


def test_an_operator_that_tensorrt_lacks_is_named(save, built):
    graph = "graph (float[N, 2] x) => (float[N, 2] y) { y = Frobnicate(x) }"
    with pytest.raises(InvalidWeights, match=r"node 0 \(Frobnicate\): .*"):
        built(save(graph))


@pytest.mark.parametrize(
    "content", [b"", b"no protocol buffer", b"\x08\x08" + bytes(500)], ids=len
)
def test_a_file_that_is_no_model_is_invalid_weights(tmp_path, built, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidWeights, match=r"TensorRT cannot read '.*\.onnx': .+"):
        built(path)


def test_sizes_of_images_that_are_free_are_refused(save, built):
    graph = "graph (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }"
    with pytest.raises(InvalidWeights, match=r"in axis 2 of \[-1, 3, -1, -1\]; export"):
        built(save(graph))


def test_weights_outside_the_folder_are_not_read(save, built, tmp_path):
    outside = tmp_path.parent / "secret.bin"
    outside.write_bytes(bytes(8))
    model = parsed("graph (float[N, 2] x) => (float[N, 2] y) { y = Add(x, w) }")
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    external_data_helper.set_external_data(tensor, "../secret.bin")
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    with pytest.raises(InvalidWeights, match="TensorRT cannot read"):
        built(save(model))


RUN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from inference_models_trt.build import BuildSettings, build
def report(what, share):
    print(what, flush=True)
build(Path(sys.argv[1]), Path(sys.argv[2]), BuildSettings((1, 1, 1), (8, 9)), report)
"""


def test_ctrl_c_ends_a_build_and_leaves_nothing(long_build, tmp_path):
    target = tmp_path / "out" / "engine.plan"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, long_build, target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()  # it builds now
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=120)

    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert "\nbuilt\n" not in told
    assert not target.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX's")
def test_a_full_disk_ends_a_build_and_leaves_nothing(toy, tmp_path):
    target = tmp_path / "out" / "engine.plan"
    limit = "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    ignore = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    done = subprocess.run(
        [sys.executable, "-c", f"{limit}; {ignore}\n{RUN}", toy().path(), target],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert "OSError: [Errno 27] File too large" in done.stderr
    assert list(target.parent.iterdir()) == []
