from __future__ import annotations

import os

import numpy as np
import onnx.helper
import onnx.parser
import pytest
from onnx import TensorProto

from inference_models import InvalidWeights

FOUR = np.arange(4, dtype=np.float32)
ADD = """<ir_version: 8, opset_import: ["": 17]>
    graph (float[N, 4] input) => (float[N, 4] output)
    { output = Add(input, weights) }"""
ADD_IN_A_BRANCH = """<ir_version: 8, opset_import: ["": 17]>
    graph (float[N, 4] input) => (float[N, 4] output)
    {
        yes = Constant<value = bool {1}>()
        output = If(yes)<
            then_branch = yes () => (float[N, 4] a) { a = Add(input, weights) },
            else_branch = no () => (float[N, 4] b) { b = Add(input, weights) }
        >
    }"""


def weights(location, **entries):
    """Four numbers that lie in another file."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    fields = {"location": location, "offset": "0", "length": "16", **entries}
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(tensor, kind):
    """`output = input + weights`, with the weights where `kind` says."""
    model = onnx.parser.parse_model(ADD if kind != "branch" else ADD_IN_A_BRANCH)
    if kind == "initializer":
        model.graph.initializer.append(tensor)
        return model
    graphs = [model.graph]
    if kind == "branch":
        graphs = [branch.g for branch in model.graph.node[1].attribute]
    constant = onnx.helper.make_node("Constant", [], ["weights"], value=tensor)
    for graph in graphs:
        graph.node.insert(0, constant)
    return model


@pytest.fixture
def folder(tmp_path):
    """A folder beside a secret; tests write models into it."""
    FOUR.tofile(tmp_path / "secret.bin")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    FOUR.tofile(folder / "weights.bin")
    FOUR.tofile(folder / "sub" / "weights.bin")
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    return folder


@pytest.fixture
def run(folder, start):
    def run(location, kind="initializer", **entries):
        path = folder / "model.onnx"
        proto = model(weights(location, **entries), kind)
        path.write_bytes(proto.SerializeToString())
        return start(path)(input=FOUR[None])["output"][0].tolist()

    return run


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin"])
def test_weights_beside_the_model_are_read(run, location, kind):
    assert run(location, kind) == [0, 2, 4, 6]


def test_a_hard_link_is_a_file_like_any_other(run):
    assert run("hard.bin") == [0, 2, 4, 6]


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "sub/../../secret.bin",
        "/etc/hostname",
        "C:\\secret.bin",
        "..\\secret.bin",
        "file:secret.bin",
        "weights.bin\0",
    ],
)
def test_nothing_outside_the_folder_is_read(run, location, kind):
    with pytest.raises(InvalidWeights, match="which is outside its folder"):
        run(location, kind)


def test_an_absolute_path_to_what_is_there_is_refused(run, tmp_path):
    with pytest.raises(InvalidWeights, match="outside its folder"):
        run(str(tmp_path / "secret.bin"))


@pytest.mark.parametrize("target", ["../secret.bin", "loop.bin"])
def test_a_link_out_of_the_folder_is_refused(run, folder, target):
    (folder / "loop.bin").symlink_to(target)

    # From Python 3.13 on, a link in a circle resolves, to a file that is not there.
    with pytest.raises(InvalidWeights, match=r"outside its folder|no such file"):
        run("loop.bin")


@pytest.mark.parametrize("location", ["missing.bin", "sub", "", "*/_ORT_MEM_ADDR_/*"])
def test_a_missing_file_is_named(run, location):
    with pytest.raises(InvalidWeights, match="there is no such file"):
        run(location)


@pytest.mark.parametrize(
    "entries",
    [{"offset": "-8"}, {"offset": "8"}, {"length": "-1"}, {"length": "99999"}],
)
def test_weights_beyond_the_file_are_invalid(run, entries):
    with pytest.raises(InvalidWeights, match="ONNX Runtime cannot open"):
        run("weights.bin", **entries)
