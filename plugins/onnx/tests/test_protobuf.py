"""Bytes that are no model, or too much of one, as our own reader meets them."""

from __future__ import annotations

import onnx.parser
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_models import InvalidWeights
from inference_models_onnx import protobuf
from inference_models_onnx.contents import read_contents

RELU = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["": 17], producer_name: "us">
    graph (float[N, 4] input) => (float[N, 4] output) <float[4] weights = {1, 2, 3, 4}>
    { sum = Add(input, weights) output = Relu(sum) }"""
).SerializeToString()

# Those that the reader looks into, and one of each other kind.
NUMBERS = [1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 20, 22, 25, 2**29 - 1]


def varint(value):
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(depth):
    """A model with a graph in a graph, so many times; three messages each."""
    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + varint(20 << 3) + b"\5"
        graph = field(1, field(4, b"If") + field(5, attribute))
    return RELU + field(7, graph)


numbers = st.sampled_from(NUMBERS)
leaves = st.one_of(
    st.builds(lambda n, v: varint(n << 3) + varint(v), numbers, st.integers(0, 2**64)),
    st.builds(field, numbers, st.binary(max_size=9) | st.sampled_from([b"location"])),
    st.builds(lambda n, v: varint(n << 3 | 5) + v, numbers, st.binary(max_size=4)),
    st.builds(lambda n, v: varint(n << 3 | 1) + v, numbers, st.binary(max_size=8)),
)
messages = st.recursive(
    st.lists(leaves, max_size=4).map(b"".join),
    lambda inner: st.lists(st.builds(field, numbers, inner), max_size=4).map(b"".join),
    max_leaves=30,
)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Contents of these bytes, or None where they are refused in a sentence."""
    path = tmp_path_factory.mktemp("fuzz") / "model.onnx"

    def read(content):
        path.write_bytes(content)
        try:
            return read_contents(path)
        except InvalidWeights:
            return None

    return read


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(read, content):
    read(content)


@settings(max_examples=300, deadline=None)
@given(content=messages, model=st.booleans())
def test_any_messages_are_read_or_refused(read, content, model):
    read(RELU + content if model else content)


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, len(RELU)),
    dropped=st.integers(0, 9),
    put=st.binary(max_size=9) | st.integers(0, 2**70).map(varint),
)
def test_a_model_with_other_bytes_in_it_is_read_or_refused(read, start, dropped, put):
    read(RELU[:start] + put + RELU[start + dropped :])


def test_what_these_tests_damage_is_read_where_it_is_whole(read):
    assert read(RELU).outputs.keys() == {"output"}


def test_graphs_in_graphs_are_read_as_deep_as_the_runtime_reads_them(read):
    providers = ["CPUExecutionProvider"]

    assert read(nested(33)) is not None
    assert read(nested(34)) is None
    with pytest.raises(Exception, match=r"(?i)protobuf parsing failed"):
        onnxruntime.InferenceSession(nested(34), providers=providers)


@pytest.mark.parametrize("depth", [34, 1000, 20_000])
def test_graphs_in_graphs_without_end_are_refused(tmp_path, depth):
    path = tmp_path / "model.onnx"
    path.write_bytes(nested(depth))

    with pytest.raises(InvalidWeights, match="nests messages over 100 deep"):
        read_contents(path)


@pytest.mark.parametrize("more", [10, 10**5])
def test_a_number_of_more_than_ten_bytes_is_refused(read, more):
    """Parsers stop there. A longer one would take ever longer to put together."""
    assert read(RELU + b"\x08" + b"\x80" * 9 + b"\1") is not None
    assert read(RELU + b"\x08" + b"\x80" * more + b"\0") is None


@pytest.mark.parametrize("content", [field(7, b"\x0a\0" * 1000), b"\x72\0" * 1000])
def test_more_than_anybody_needs_is_refused(tmp_path, monkeypatch, content):
    """Empty nodes, and empty metadata: of two bytes each."""
    monkeypatch.setattr(protobuf, "_MOST_FIELDS", 1000)
    path = tmp_path / "model.onnx"
    path.write_bytes(RELU + content)

    with pytest.raises(InvalidWeights, match="has over 1000 fields, as no model needs"):
        read_contents(path)
