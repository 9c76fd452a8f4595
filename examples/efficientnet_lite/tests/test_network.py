"""The network's structure, its padding, and its export, on random weights."""

import math

import pytest

torch = pytest.importorskip("torch")

from efficientnet_lite_models.network import (  # noqa: E402
    EfficientNetLite0,
    StridedConv2d,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EfficientNetLite0()


def test_parameters_are_as_many_as_published(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("_conv_stem.weight", (32, 3, 3, 3)),
        ("_bn0.running_mean", (32,)),
        ("_blocks.0._depthwise_conv.weight", (32, 1, 3, 3)),
        ("_blocks.0._project_conv.weight", (16, 32, 1, 1)),
        ("_blocks.3._expand_conv.weight", (144, 24, 1, 1)),
        ("_blocks.3._bn0.num_batches_tracked", ()),
        ("_blocks.11._depthwise_conv.weight", (672, 1, 5, 5)),
        ("_blocks.15._bn2.bias", (320,)),
        ("_conv_head.weight", (1280, 320, 1, 1)),
        ("_bn1.weight", (1280,)),
        ("_fc.weight", (1000, 1280)),
    ],
)
def test_tensors_of_the_published_file_have_their_place(model, name, shape):
    assert tuple(model.state_dict()[name].shape) == shape


def test_the_state_dict_has_as_many_tensors_as_the_published_file(model):
    assert len(model.state_dict()) == 296
    assert not any("_blocks.0._expand" in name for name in model.state_dict())


def test_batch_norms_have_tensorflow_s_epsilon(model):
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def padded_as_tensorflow_does(images, kernel, stride):
    """Zeros around the images, by the definition in TensorFlow's documentation."""
    batch, channels, size, _ = images.shape
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    canvas = torch.zeros(batch, channels, size + total, size + total)
    start = total // 2
    canvas[:, :, start : start + size, start : start + size] = images
    return canvas


@pytest.mark.parametrize("size", [7, 8, 224, 225])
@pytest.mark.parametrize("kernel", [3, 5])
def test_strided_convolutions_pad_as_tensorflow_does(kernel, size):
    conv = StridedConv2d(2, 3, kernel, stride=2, bias=False)
    images = torch.randn(1, 2, size, size)
    canvas = padded_as_tensorflow_does(images, kernel, stride=2)
    expected = torch.nn.functional.conv2d(canvas, conv.weight, stride=2)
    assert expected.shape[-1] == math.ceil(size / 2)
    torch.testing.assert_close(conv(images), expected)


def test_sides_of_an_image_are_padded_each_for_itself():
    conv = StridedConv2d(1, 1, 3, stride=2)
    assert conv(torch.zeros(1, 1, 7, 10)).shape == (1, 1, 4, 5)


def test_a_new_network_is_ready_for_inference(model):
    assert not any(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 225])
def test_an_export_takes_batches_of_any_size(model, size, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "efficientnet.onnx"
    dynamic = ({0: torch.export.Dim("batch")},)
    example = (torch.randn(2, 3, size, size),)
    torch.onnx.export(model, example, path, dynamic_shapes=dynamic, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, size, size)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        expected = model(images).detach()
        torch.testing.assert_close(
            torch.from_numpy(logits), expected, atol=1e-4, rtol=0
        )
