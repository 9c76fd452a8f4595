"""Normalisations folded into convolutions: the same function, and nothing lost."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from inference_models import Bundle, InvalidWeights  # noqa: E402
from inference_models_resnet import ResNet  # noqa: E402
from inference_models_resnet.folding import folded  # noqa: E402
from inference_models_resnet.layout import Layout, convolutions  # noqa: E402
from inference_models_resnet.network import ResNet as Network  # noqa: E402

from .test_network import randomise, transformers_resnet  # noqa: E402
from .test_resnet import narrow  # noqa: E402

NARROW = Layout(18, 3, 8)


@pytest.fixture
def pack(tmp_path):
    card = narrow("classification")
    return ResNet(Bundle(card, card.artifacts[0], tmp_path))


@pytest.fixture
def trained():
    """A network as training leaves it."""
    return randomise(Network(*NARROW))


def filled(pack, state):
    module = pack.modules()["main"]
    module.load_state_dict(pack.weights("main", dict(state)), strict=True)
    return module


def relative_difference(expected, found):
    return ((expected - found).abs().max() / expected.abs().max()).item()


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_the_network_that_is_run_has_no_normalisations(pack):
    kinds = {type(each) for each in pack.modules()["main"].modules()}

    assert torch.nn.BatchNorm2d not in kinds


def test_it_is_the_function_that_was_trained(pack, trained):
    module = filled(pack, trained.state_dict())
    with torch.inference_mode():
        difference = relative_difference(trained(images()), module(images()))

    assert difference <= 1e-5


@pytest.mark.parametrize(("depth", "size"), [(18, 224), (50, 224), (50, 97)])
def test_it_is_the_function_of_transformers(depth, size, tmp_path):
    card = narrow("classification", labels=[f"{n}" for n in range(10)])
    card.config.update(depth=depth, width=64)
    pack = ResNet(Bundle(card, card.artifacts[0], tmp_path))
    reference = transformers_resnet(depth, 10)
    module = filled(pack, reference.state_dict())
    with torch.inference_mode():
        expected = reference(images(size)).logits
        difference = relative_difference(expected, module(images(size)))

    assert difference <= 1e-5


def test_halves_are_folded_as_the_numbers_that_they_are(pack, trained):
    state = {name: value.half() for name, value in trained.state_dict().items()}
    trained.load_state_dict(state)
    module = filled(pack, state)
    with torch.inference_mode():
        difference = relative_difference(trained(images()), module(images()))

    assert difference <= 1e-5
    assert {each.dtype for each in pack.weights("main", state).values()} <= {
        torch.float16,  # the last layer's, which nothing is folded into
        torch.float32,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tensors_of_the_file_stay_as_they_were(dtype, pack, trained):
    state = {name: value.to(dtype) for name, value in trained.state_dict().items()}
    kept = {name: value.clone() for name, value in state.items()}
    pack.weights("main", state)

    assert state.keys() == kept.keys()
    assert all(torch.equal(kept[name], state[name]) for name in kept)


@pytest.mark.parametrize("counters", [True, False])
def test_counters_of_batches_are_dropped(counters, pack, trained):
    state = trained.state_dict()
    if not counters:
        state = {k: v for k, v in state.items() if not k.endswith("batches_tracked")}
    expected = {
        f"{conv}.{part}"
        for conv, _, _ in convolutions(NARROW)
        for part in ("weight", "bias")
    }

    assert pack.weights("main", state).keys() == expected | {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bn1.running_var": None}, r"it lacks bn1\.running_var; is it of"),
        ({"layer1.0.bn2.bias": None}, r"it lacks layer1\.0\.bn2\.bias; is it of"),
        ({"conv1.weight": None}, r"it lacks conv1\.weight; is it of"),
        ({"fc.bias": None}, r"it lacks fc\.bias; is it of"),
        ({"conv1.bias": torch.zeros(8)}, r"it has unknown 'conv1\.bias'; is it of"),
        ({"head.num_batches_tracked": torch.tensor(1)}, r"has unknown 'head\.num_ba"),
        ({"bn1.weight": torch.ones(1)}, r"has bn1\.weight \(1,\) instead of \(8,\)"),
        ({"conv1.weight": torch.ones(8, 3, 1, 1)}, r"\(8, 3, 1, 1\) instead of \(8, 3"),
        ({"bn1.bias": torch.zeros(8, dtype=torch.complex64)}, r"has complex bn1\.bias"),
        ({"bn1.bias": torch.zeros(8).to_sparse()}, "of kinds that torch cannot conv"),
        (
            {
                "a": torch.zeros(1),
                "b": torch.zeros(1),
                "c": None,
                "fc.bias": None,
                "bn1.bias": None,
            },
            r"lacks bn1\.bias; it lacks fc\.bias; it has unknown 'a'; and 1 more",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_name(change, problem, pack, trained):
    state = {**trained.state_dict(), **change}
    given = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(
        InvalidWeights, match=rf"weights\.pth' does not fit .*{problem}"
    ):
        pack.weights("main", given)


def test_a_name_that_would_garble_a_message_is_cut(trained, tmp_path):
    given = {**trained.state_dict(), "\x1b" * 300: torch.zeros(1)}
    with pytest.raises(InvalidWeights) as found:
        folded(given, NARROW, tmp_path)

    assert str(found.value).isprintable()
    assert len(str(found.value)) < 200 + len(str(tmp_path))
