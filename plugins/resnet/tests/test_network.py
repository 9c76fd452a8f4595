"""The network against published facts and against transformers' implementation."""

import pytest

torch = pytest.importorskip("torch")

from inference_models_resnet.layout import (  # noqa: E402
    BLOCKS,
    Layout,
    from_transformers,
    recognise,
    tensors,
)
from inference_models_resnet.network import ResNet  # noqa: E402

PUBLISHED_PARAMETERS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}


def shapes(depth, classes=1000, width=64):
    with torch.device("meta"):
        state = ResNet(depth, classes, width).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def without_counters(tensors):
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def randomise(model):
    """Weights and statistics that make every tensor matter to the outputs."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and "weight" in name):
            tensor.uniform_(0.5, 1.0, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


@pytest.mark.parametrize("depth", BLOCKS)
def test_parameters_are_as_many_as_published(depth):
    with torch.device("meta"):
        model = ResNet(depth, 1000)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == PUBLISHED_PARAMETERS[depth]


@pytest.mark.parametrize("depth", BLOCKS)
def test_names_and_shapes_are_those_of_the_layout(depth):
    layout = Layout(depth, 10, width=16)
    assert without_counters(shapes(*layout)) == dict(tensors(layout))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv1.weight", (64, 3, 7, 7)),
        ("bn1.running_var", (64,)),
        ("layer1.0.downsample.0.weight", (256, 64, 1, 1)),
        ("layer1.2.conv1.weight", (64, 256, 1, 1)),
        ("layer2.0.conv2.weight", (128, 128, 3, 3)),
        ("layer2.0.downsample.1.num_batches_tracked", ()),
        ("layer3.5.conv3.weight", (1024, 256, 1, 1)),
        ("layer4.2.bn3.bias", (2048,)),
        ("fc.weight", (1000, 2048)),
    ],
)
def test_published_tensors_of_resnet50_have_their_place(name, shape):
    assert shapes(50)[name] == shape
    assert len(shapes(50)) == 320


@pytest.mark.parametrize("counters", [True, False])
def test_a_state_dict_loads_with_and_without_batch_counters(counters):
    source = randomise(ResNet(18, 4, width=8))
    state = dict(source.state_dict())
    target = ResNet(18, 4, width=8)
    target.load_state_dict(state if counters else without_counters(state))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(target(images), source(images))


@pytest.mark.parametrize("depth", BLOCKS)
def test_a_checkpoint_tells_depth_classes_and_width(depth):
    assert recognise(shapes(depth, 7)) == (depth, 7, 64)
    assert recognise(without_counters(shapes(depth, 3, 16))) == (depth, 3, 16)


@pytest.mark.parametrize(
    "change",
    [
        {"layer1.0.conv2.weight": (64, 4, 3, 3)},  # grouped
        {"layer1.0.conv1.weight": (128, 64, 1, 1)},  # wide
        {"conv1.weight": (64, 1, 7, 7)},  # one input channel
        {"layer1.0.se.fc1.weight": (16, 256, 1, 1)},  # squeeze-and-excite
        {"layer3.6.conv1.weight": (256, 1024, 1, 1)},  # a block more
        {"fc.weight": ()},
    ],
)
def test_a_relative_is_not_recognised(change):
    assert recognise({**shapes(50), **change}) is None


@pytest.mark.parametrize("missing", ["conv1.weight", "fc.weight", "layer4.2.bn3.bias"])
def test_a_checkpoint_with_a_gap_is_not_recognised(missing):
    found = shapes(50)
    del found[missing]
    assert recognise(found) is None


def transformers_resnet(depth, classes):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        depths=list(BLOCKS[depth]),
        hidden_sizes=[
            w * Layout(depth, classes).expansion for w in (64, 128, 256, 512)
        ],
        layer_type="bottleneck" if depth >= 50 else "basic",
        num_labels=classes,
    )
    return randomise(transformers.ResNetForImageClassification(config))


@pytest.mark.parametrize(("depth", "size"), [(18, 224), (50, 224), (50, 97)])
def test_logits_are_those_of_transformers(depth, size):
    reference = transformers_resnet(depth, 10)
    state = {from_transformers(k): v for k, v in reference.state_dict().items()}
    assert recognise({name: x.shape for name, x in state.items()}) == (depth, 10, 64)
    model = ResNet(depth, 10)
    model.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = reference(images).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-4)


def test_torchvision_names_are_left_as_they_are():
    assert [from_transformers(name) for name in shapes(50)] == list(shapes(50))


def test_a_new_network_is_ready_for_inference():
    assert not any(module.training for module in ResNet(18, 2, width=8).modules())


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_an_export_takes_batches_of_any_size(depth, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = randomise(ResNet(depth, 5, width=8))
    path = tmp_path / "resnet.onnx"
    dynamic = ({0: torch.export.Dim("batch")},)
    example = (torch.randn(2, 3, 64, 64),)
    torch.onnx.export(model, example, path, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 64, 64)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        expected = model(images).detach()
        torch.testing.assert_close(
            torch.from_numpy(logits), expected, atol=1e-4, rtol=0
        )
