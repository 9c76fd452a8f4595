"""Linear layers in oneDNN's order give what torch's own give."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from inference_models import Plan
from inference_models_torch import TorchBackend
from inference_models_torch.packed import PackedLinear, can_pack, pack_linears

pytestmark = pytest.mark.skipif(
    not can_pack(), reason="linear layers are packed on x86 processors alone"
)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def linear(inputs=8, outputs=5, bias=True):
    return nn.Linear(inputs, outputs, bias).requires_grad_(False)


def packed_names(module):
    """Where in a module the packed layers are."""
    return [n for n, child in module.named_modules() if type(child) is PackedLinear]


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


# Numbers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shape", [(8,), (3, 8), (2, 3, 8), (2, 3, 4, 8), (1, 1, 8), (0, 8), (0, 3, 8)]
)
def test_a_packed_layer_gives_the_same_numbers(shape, bias):
    layer = linear(bias=bias)

    close(pack_linears(layer)(drawn(*shape)), layer(drawn(*shape)))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(2, 1, 0),
        lambda x: x[:, ::2],
        lambda x: x[..., :1].expand(-1, -1, 8),
        lambda x: x.flip(-1),
        lambda x: torch.as_strided(x, (4, 8), (3, 1)),
    ],
    ids=["transposed", "permuted", "strided", "expanded", "flipped", "overlapping"],
)
def test_a_packed_layer_reads_what_is_not_contiguous(view):
    layer = linear()
    given = view(drawn(8, 6, 8))

    close(pack_linears(layer)(given), layer(given))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 13), (64, 1), (384, 1536)])
def test_layers_of_any_size_are_packed(inputs, outputs):
    layer = linear(inputs, outputs)

    close(pack_linears(layer)(drawn(3, inputs)), layer(drawn(3, inputs)))


@pytest.mark.parametrize(
    "given", [drawn(3, 7), drawn(3, 8).double(), drawn(3, 8).half()]
)
def test_a_packed_layer_refuses_what_torchs_own_refuses(given):
    with pytest.raises(RuntimeError):
        pack_linears(linear())(given)


def test_a_packed_layer_does_not_write_to_its_input():
    given = drawn(3, 8)
    pack_linears(linear())(given)

    assert torch.equal(given, drawn(3, 8))


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_given_back_as_they_were(bias):
    layer = linear(bias=bias)
    packed = pack_linears(layer)

    assert torch.equal(packed.weight, layer.weight)
    assert packed.bias is layer.bias
    assert (packed.in_features, packed.out_features) == (8, 5)


def test_eight_threads_get_what_one_gets():
    layer = pack_linears(nn.Sequential(linear(64, 64), nn.ReLU(), linear(64, 64)))
    batches = [drawn(17, 64).roll(shift, 0) for shift in range(32)]
    expected = [layer(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(layer, batches))

    assert all(map(torch.equal, expected, found))


# What is packed


class Nested(nn.Module):
    """Linear layers in each kind of container, below one another."""

    def __init__(self):
        super().__init__()
        self.named = nn.ModuleDict({"first": linear(8, 8)})
        self.listed = nn.ModuleList([nn.Sequential(linear(8, 8), nn.ReLU())])
        self.last = linear()

    def forward(self, x):
        return self.last(self.listed[0](self.named["first"](x)))


def test_layers_are_packed_wherever_they_are():
    module = Nested()
    expected = module(drawn(3, 8))
    packed = pack_linears(module)

    assert packed is module
    assert packed_names(packed) == ["named.first", "listed.0.0", "last"]
    close(packed(drawn(3, 8)), expected)


def test_a_layer_by_itself_is_packed():
    assert type(pack_linears(linear())) is PackedLinear


def test_a_layer_used_in_two_places_is_right_in_both():
    shared = linear(8, 8)
    module = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    expected = module(drawn(3, 8))

    close(pack_linears(module)(drawn(3, 8)), expected)


def test_what_is_packed_stays_as_it_is():
    module = pack_linears(nn.Sequential(linear()))
    (before,) = module

    assert pack_linears(module)[0] is before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_layer_of_another_precision_is_left_alone(dtype):
    module = nn.Sequential(linear()).to(dtype)

    assert packed_names(pack_linears(module)) == []


def test_a_layer_of_another_class_is_left_alone():
    module = nn.MultiheadAttention(8, 2).eval().requires_grad_(False)
    expected, _ = module(*[drawn(3, 1, 8)] * 3)
    found, _ = pack_linears(module)(*[drawn(3, 1, 8)] * 3)

    assert packed_names(module) == []
    assert torch.equal(found, expected)


def test_a_layers_hooks_are_kept():
    layer = linear()
    layer.register_forward_pre_hook(lambda _, given: (given[0] + 1,))
    layer.register_forward_hook(lambda _, given, made: made * 2)
    expected = layer(drawn(3, 8))

    close(pack_linears(nn.Sequential(layer))(drawn(3, 8)), expected)


# In a session


def session(workshop, precision, fp32_modules=()):
    bundle = workshop.bundle(workshop.safetensors())
    architecture = workshop.Tiny(bundle)
    architecture.fp32_modules = fp32_modules
    return TorchBackend().open(bundle, architecture, Plan("cpu", precision))["main"]


IMAGES = drawn(3, 3, 32, 32)


@pytest.mark.parametrize(
    ("precision", "fp32_modules", "expected"),
    [
        ("fp32", (), ["block.0", "head"]),
        ("bf16", (), []),
        ("bf16", ("block",), []),
    ],
)
def test_on_the_cpu_float32_layers_are_packed(
    workshop, precision, fp32_modules, expected
):
    opened = session(workshop, precision, fp32_modules)

    assert packed_names(opened._module) == expected


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.05)])
@pytest.mark.parametrize("fp32_modules", [(), ("block",), ("block.0",), ("head",)])
def test_a_session_gives_what_torch_gives(workshop, precision, tolerance, fp32_modules):
    output = session(workshop, precision, fp32_modules)(input=IMAGES)["output"]
    expected = torch.from_numpy(workshop.reference(IMAGES))

    torch.testing.assert_close(output.float(), expected, atol=tolerance, rtol=0.02)


@pytest.mark.parametrize("fp32_modules", [("block",), ("block.0",), ("head",)])
def test_a_session_in_half_precision_gives_half_precision(workshop, fp32_modules):
    output = session(workshop, "bf16", fp32_modules)(input=IMAGES)["output"]

    assert output.dtype == torch.bfloat16


def test_where_nothing_can_be_packed_torchs_own_layers_run(workshop, monkeypatch):
    monkeypatch.setattr("inference_models_torch.packed.can_pack", lambda: False)
    opened = session(workshop, "fp32")

    assert packed_names(opened._module) == []


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()]
)
def test_an_activation_behind_a_layer_becomes_a_part_of_it(activation):
    source = nn.Sequential(nn.Linear(8, 16), activation, nn.Linear(16, 4), nn.SiLU())
    given = torch.randn(5, 8)
    with torch.inference_mode():
        expected = source(given)
        packed = pack_linears(source)
        found = packed(given)

    assert [nn.Identity, nn.SiLU] == [type(packed[1]), type(packed[3])]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Shuffled(nn.Sequential):
    """Uses its parts in another order than they stand in."""

    def forward(self, x):
        return self[0](self[1](x))


def test_an_activation_stays_where_the_order_is_not_known():
    source = Shuffled(nn.Linear(8, 8), nn.ReLU())
    given = torch.randn(5, 8)
    with torch.inference_mode():
        expected = source(given)
        found = pack_linears(source)(given)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_activation_with_a_hook_stays():
    source = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    seen = []
    source[1].register_forward_hook(lambda *call: seen.append(call))
    pack_linears(source)(torch.randn(2, 8))

    assert len(seen) == 1
