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


def test_a_folder_that_leads_out_of_the_folder_is_refused(run, folder):
    (folder / "away").symlink_to(folder.parent)

    with pytest.raises(InvalidWeights, match="outside its folder"):
        run("away/secret.bin")


def test_a_link_within_the_folder_is_followed(run, folder):
    (folder / "link.bin").symlink_to("sub/weights.bin")
    (folder / "links").symlink_to("sub")

    assert run("links/weights.bin") == [0, 2, 4, 6]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason=f"{os.name} has no pipes by name")
def test_a_pipe_is_not_waited_for(run, folder):
    os.mkfifo(folder / "pipe.bin")

    with pytest.raises(InvalidWeights, match="there is no such file"):
        run("pipe.bin")


@pytest.mark.parametrize("location", ["missing.bin", "sub", "", "*/_ORT_MEM_ADDR_/*"])
def test_a_missing_file_is_named(run, location):
    with pytest.raises(InvalidWeights, match="there is no such file"):
        run(location)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "8"},
        {"offset": "17", "length": "0"},
        {"offset": str(2**63 - 1)},
        {"length": "99999"},
        {"length": str(2**63 - 1)},
    ],
)
def test_weights_beyond_the_file_are_invalid(run, entries):
    with pytest.raises(InvalidWeights, match=r"of 'weights\.bin', which has 16; fetch"):
        run("weights.bin", **entries)


@pytest.mark.parametrize("value", ["-8", "-1", "", " 0", "0x8", "8.0", "٨", "9" * 20])
@pytest.mark.parametrize("name", ["offset", "length"])
def test_what_is_no_number_of_bytes_is_named(run, name, value):
    with pytest.raises(InvalidWeights, match=f"has {name} '.*no number of bytes; exp"):
        run("weights.bin", **{name: value})


@pytest.mark.parametrize("name", ["__class__", "basepath", "Location", "", "a" * 999])
def test_what_nobody_knows_of_external_data_is_refused(run, name):
    with pytest.raises(InvalidWeights, match="are known, once each; export") as caught:
        run("weights.bin", **{name: "x"})
    assert repr(name)[:80] in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["location", "offset", "length"])
def test_what_is_said_twice_of_external_data_is_refused(folder, start, name):
    tensor = weights("weights.bin")
    tensor.external_data.add(key=name, value="0")
    path = folder / "model.onnx"
    path.write_bytes(model(tensor, "initializer").SerializeToString())

    with pytest.raises(InvalidWeights, match=f"gives '{name}' of weights .* once each"):
        start(path)


def test_the_rest_of_a_file_is_read_where_no_length_is_given(folder, start):
    tensor = weights("weights.bin")
    del tensor.external_data[2]
    path = folder / "model.onnx"
    path.write_bytes(model(tensor, "initializer").SerializeToString())

    assert start(path)(input=FOUR[None])["output"][0].tolist() == [0, 2, 4, 6]


def test_a_checksum_is_no_reason_to_refuse(run):
    assert run("weights.bin", checksum="0" * 40) == [0, 2, 4, 6]


def test_a_tensor_larger_than_its_file_is_refused(folder, start):
    """Without a length, its shape says how much of the file is wanted: 2 GiB."""
    tensor = weights("weights.bin")
    del tensor.external_data[2]
    tensor.dims[:] = [2**29]
    text = """<ir_version: 8, opset_import: ["": 17]>
        graph (int64[N] input) => (float[N] output)
        { output = Gather(weights, input) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())

    with pytest.raises(InvalidWeights, match="fetch it again, or export it anew"):
        start(path)


@pytest.mark.parametrize("length", [300, 5000, 10**6])
def test_a_name_longer_than_names_can_be_is_missing(run, length):
    with pytest.raises(InvalidWeights, match="there is no such file") as caught:
        run("a" * length)
    assert len(str(caught.value)) < 1000
