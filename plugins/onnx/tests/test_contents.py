from __future__ import annotations

import random

import onnx.helper
import pytest

from inference_models import InvalidWeights, TensorSpec
from inference_models_onnx import OnnxBackend

GRAPH = """graph (float[batch, 3, 8, ?] image, uint8[2] flags, float[3] scale)
    => (float16[batch, 3, 8, ?] half, bool[2] set)
    <float[3] scale = {1, 2, 3}>
    {
        half = Cast<to = 10>(image)
        set = Cast<to = 9>(flags)
        unused = Identity(scale)
    }"""


def inspect(path):
    return OnnxBackend().inspect(path)


@pytest.fixture
def path(save):
    head = '<ir_version: 8, opset_import: ["": 17, "other": 1], producer_name: "us">'
    model = onnx.parser.parse_model(head + GRAPH)
    model.graph.input[0].type.tensor_type.shape.dim[3].Clear()
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = -1
    onnx.helper.set_model_props(model, {"names": "{0: 'cat'}"})
    return save(model)


def test_tells_tensors_opset_and_metadata(path):
    facts = inspect(path)

    assert facts.format == "onnx"
    assert facts.tensors == {
        "image": TensorSpec("float32", ("batch", 3, 8, "?3")),
        "flags": TensorSpec("uint8", (2,)),
        "half": TensorSpec("float16", ("batch", 3, 8, "?3")),
        "set": TensorSpec("bool", (2,)),
    }
    assert facts.metadata == {
        "inputs": ["image", "flags"],
        "outputs": ["half", "set"],
        "opset": 17,
        "producer": "us",
        "names": "{0: 'cat'}",
    }


def test_agrees_with_the_session(path, start):
    session = start(path)

    assert {**session.inputs, **session.outputs} == inspect(path).tensors


def test_other_files_are_none_of_its_business(tmp_path, path):
    other = path.rename(tmp_path / "model.pt")

    assert inspect(other) is None
    assert inspect(tmp_path / "missing.onnx") is None
    assert inspect(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"],
)
def test_a_foreign_file_is_invalid(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(InvalidWeights, match="damaged, cut off or no ONNX file"):
        inspect(path)


def test_a_file_cut_off_anywhere_is_invalid(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            # Without its last fields, metadata and domains, a file may still be whole.
            assert inspect(path).tensors
        except InvalidWeights:
            continue
        onnx.load_model_from_string(whole[:length])


def test_damage_gives_facts_or_invalid_weights_and_nothing_else(path):
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            inspect(path)
        except InvalidWeights:
            continue


def test_a_field_number_beyond_32_bits_is_invalid(path):
    hidden = b"\xba\x80\x80\x80\x10\x00"  # field 7, and a bit that some parsers drop
    path.write_bytes(path.read_bytes() + hidden)

    with pytest.raises(InvalidWeights):
        inspect(path)


def test_weights_are_not_read(path):
    with path.open("ab") as file:
        # Field 99 with 4 GiB of bytes, which take no room on the disk.
        file.write(b"\x9a\x06" + b"\x80\x80\x80\x80\x10")
        file.truncate(file.tell() + 2**32)

    assert inspect(path).metadata["opset"] == 17
