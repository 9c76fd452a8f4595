from __future__ import annotations

import os

import numpy as np
import onnx.helper
import pytest
from onnx import TensorProto

from inference_models import InvalidWeights

FOUR = np.arange(4, dtype=np.float32)


def model(location, kind="initializer", **entries):
    """`output = input + weights`, with four weights in the file `location`."""
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4])
    weights.data_location = TensorProto.EXTERNAL
    fields = {"location": location, "offset": "0", "length": "16", **entries}
    for key, value in fields.items():
        weights.external_data.add(key=key, value=value)
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    constant = node("Constant", [], ["weights"], value=weights)
    nodes = [node("Add", ["input", "weights"], ["output"])]
    tensors = [tensor(n, TensorProto.FLOAT, ["N", 4]) for n in ("input", "output")]
    weighted = [weights] if kind == "initializer" else []
    if kind != "initializer":
        nodes.insert(0, constant)
    if kind == "branch":
        branch = onnx.helper.make_graph(nodes, "branch", [], tensors[1:])
        yes = node(
            "Constant", [], ["yes"], value=onnx.helper.make_tensor("", 9, [], [1])
        )
        choice = node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch)
        nodes = [yes, choice]
    graph = onnx.helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], weighted)
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def folder(tmp_path):
    """A folder beside a secret; tests write models into it."""
    FOUR.tofile(tmp_path / "secret.bin")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    FOUR.tofile(folder / "weights.bin")
    FOUR.tofile(folder / "sub" / "weights.bin")
    os.link(folder / "weights.bin", folder / "hard.bin")
    return folder


@pytest.fixture
def run(folder, start):
    def run(location, kind="initializer", **entries):
        path = folder / "model.onnx"
        path.write_bytes(model(location, kind, **entries).SerializeToString())
        return start(path)(input=FOUR[None])["output"][0].tolist()

    return run


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "hard.bin"])
def test_weights_beside_the_model_are_read(run, location, kind):
    assert run(location, kind) == [0, 2, 4, 6]


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

    with pytest.raises(InvalidWeights, match="outside its folder"):
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
