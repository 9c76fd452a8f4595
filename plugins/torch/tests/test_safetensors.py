"""`.safetensors` files that say of themselves what is not so."""

import json

import numpy as np
import pytest
import torch

from inference_models import Facts, InvalidWeights, Plan, TensorSpec
from inference_models_torch import TorchBackend, facts, header, weights

EIGHT = b"\0" * 8


def inspect(path):
    return TorchBackend().inspect(path)


def tensor(dtype="F32", shape=(2,), start=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def file(header, data=EIGHT, length=None):
    """The bytes of a file, with its header's length as claimed."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    return claimed.to_bytes(8, "little") + text + data


def nested(opening, depth):
    return file(b'{"a":' + opening * depth)


WRONG = {
    "an empty file": b"",
    "a length alone": EIGHT,
    "a header longer than the file": file({"a": tensor()}, length=1000),
    "a header of 100 MB": file({"a": tensor()}, length=10**8 + 1),
    "a header of all memory": file({"a": tensor()}, length=2**64 - 1),
    "a header that is a list": file(b"[1, 2]"),
    "a header that is no UTF-8": file(b'{"\xff":' + json.dumps(tensor()).encode()),
    "a header without end": nested(b"[", 10**5),
    "a header of endless mappings": nested(b'{"a":', 10**5),
    "an unknown dtype": file({"a": tensor("F99")}),
    "a tensor that is a number": file({"a": 1}),
    "a negative offset": file({"a": tensor(start=-8, end=0)}),
    "offsets that run backwards": file({"a": tensor(start=8, end=0)}),
    "offsets beyond the file": file({"a": tensor(shape=[2**40], end=2**42)}),
    "a tensor within another": file({"a": tensor(), "b": tensor()}),
    "tensors that overlap": file(
        {"a": tensor(), "b": tensor(start=4, end=12)}, b"\0" * 12
    ),
    "a hole": file({"a": tensor(), "b": tensor(start=16, end=24)}, EIGHT * 3),
    "a hole at the start": file({"a": tensor(start=8, end=16)}, EIGHT * 2),
    "a shape of another size": file({"a": tensor(shape=[3])}),
    "a negative size": file({"a": tensor(shape=[-2])}),
    "a size that is no number": file({"a": tensor(shape=[2.0])}),
    "a shape that overflows": file({"a": tensor(shape=[2**62, 4, 2])}),
    "a size that overflows": file({"a": tensor(shape=[2**64])}),
    "trailing bytes": file({"a": tensor()}, EIGHT + b"\0"),
    "metadata that is no text": file({"__metadata__": {"a": 1}, "a": tensor()}),
    "a pickle": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_named_and_nothing_of_it_is_read(workshop, content):
    path = workshop.folder / "model.safetensors"
    path.write_bytes(content)

    for read in (inspect, workshop.session):
        with pytest.raises(InvalidWeights, match="fetch it again") as caught:
            read(path)
        assert f"'{path}' is no whole .safetensors file" in str(caught.value)


ENTRY = json.dumps(tensor()).encode()
REPEATED = {
    "a tensor": b'{"a":%s,"a":%s}' % (ENTRY, ENTRY),
    "an escaped name": b'{"a":%s,"\\u0061":%s}' % (ENTRY, ENTRY),
    "metadata": b'{"__metadata__":{"b":"1","b":"2"},"a":%s}' % ENTRY,
    "a shape": b'{"a":{"shape":[1],"a":{"b":1,"b":2},"dtype":"F32","shape":[2],'
    b'"data_offsets":[0,8]}}',
}


@pytest.mark.parametrize("header", REPEATED.values(), ids=REPEATED)
def test_what_is_given_twice_is_refused(workshop, header):
    path = workshop.folder / "model.safetensors"
    path.write_bytes(file(header))

    for read in (inspect, workshop.session):
        with pytest.raises(InvalidWeights, match=r"\.safetensors file: .*; fetch it"):
            read(path)


def test_a_header_that_would_take_all_memory_is_refused_before_it_is_read(
    workshop, monkeypatch
):
    path = workshop.safetensors({"a": torch.zeros(1)})
    monkeypatch.setattr(header, "_LONGEST_HEADER", 8)
    monkeypatch.delattr(facts, "safe_open")
    monkeypatch.delattr(weights, "load_file")

    for read in (inspect, workshop.session):
        with pytest.raises(InvalidWeights, match="bytes, as no tensors need; fetch"):
            read(path)


def test_a_size_that_torch_cannot_hold_is_told(workshop):
    path = workshop.folder / "model.safetensors"
    path.write_bytes(file({"a": tensor(shape=[0, 2**63], end=0)}, b""))

    with pytest.raises(InvalidWeights, match=r"is no whole \.safetensors file"):
        workshop.session(path)


def test_what_weights_cannot_be_converted_from_is_told(workshop):
    """Two numbers to a byte, which torch keeps and does not compute with."""
    state = workshop.state()
    packed = torch.zeros(state["head.weight"].shape, dtype=torch.uint8)
    state["head.weight"] = packed.view(torch.float4_e2m1fn_x2)

    with pytest.raises(InvalidWeights, match="torch cannot convert all of them"):
        workshop.session(workshop.safetensors(state))


def test_complex_weights_do_not_lose_their_imaginary_part(workshop):
    state = workshop.state()
    state["head.weight"] = state["head.weight"].to(torch.complex64)

    with pytest.raises(InvalidWeights, match=r"it has complex head\.weight; is it of"):
        workshop.session(workshop.safetensors(state))


def test_names_are_shown_short_and_without_what_garbles_a_terminal(workshop):
    names = ["a" * 10**5, "\x1b[2J\r\n"]
    path = workshop.safetensors({name: torch.zeros(1) for name in names})

    with pytest.raises(InvalidWeights, match=r"unknown '\\x1b\[2J\\r\\n', '") as caught:
        workshop.session(path)
    assert len(str(caught.value)) < 1000


def test_tensors_without_numbers_are_tensors(workshop):
    path = workshop.safetensors({"a": torch.zeros(0, 3), "b": torch.zeros(2)})
    specs = {"a": TensorSpec("float32", (0, 3)), "b": TensorSpec("float32", (2,))}

    assert Facts("torch", specs, {}) == inspect(path)


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_weights_that_are_not_a_number_load_and_show_in_the_output(workshop, kind):
    state = {name: value * float("nan") for name, value in workshop.state().items()}
    session = workshop.session(getattr(workshop, kind)(state))
    output = session(input=np.zeros((1, 3, 32, 32), np.float32))["output"]

    assert torch.isnan(output).all()


# An index of several files

SHARDS = {
    "outside its folder": "../shard.safetensors",
    "at an absolute path": "/etc/hostname",
    "that is a pickle": "shard.bin",
    "that is missing": "missing.safetensors",
}


@pytest.mark.parametrize("shard", SHARDS.values(), ids=SHARDS)
def test_an_index_is_refused_and_no_file_that_it_names_is_read(workshop, shard):
    path = workshop.folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"head.weight": shard}}), "utf-8")
    bundle = workshop.bundle(path)
    plan = Plan("cpu", "fp32")
    reason = TorchBackend().refuse(bundle.card, bundle.artifact, plan)

    assert "'model.safetensors.index.json' is none of .safetensors, .pth" in reason
    assert inspect(path) is None
    with pytest.raises(InvalidWeights, match="no checkpoint of torch"):
        workshop.session(path)
