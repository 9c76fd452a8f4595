"""The same weights give the same numbers, whatever runs them and feeds them."""

from __future__ import annotations

import io
import logging
import os
import pickle
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference_models import AutoModel

BACKENDS = ("torch", "onnx")


@pytest.fixture(scope="module", autouse=True)
def cards(resnet18_cards):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_MODELS_CARDS", str(resnet18_cards))
        yield


@pytest.fixture(scope="module", params=BACKENDS)
def resnet(request, cards):
    return AutoModel.from_pretrained("resnet18", backend=request.param)


@pytest.fixture(
    scope="module",
    params=[("yolox-nano", "onnx"), *(("resnet18", b) for b in BACKENDS)],
)
def model(request, cards):
    model_id, backend = request.param
    return AutoModel.from_pretrained(model_id, backend=backend)


def logits(model, images) -> np.ndarray:
    inputs, _ = model.pre_process(images)
    (outputs,) = model.forward(inputs).values()
    return np.asarray(outputs)


def forms(bgr: np.ndarray) -> dict[str, object]:
    """The same picture in every form that a call takes."""
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    chw = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    picture, png = Image.fromarray(rgb), io.BytesIO()
    picture.save(png, "png")
    read_only = bgr.copy()
    read_only.flags.writeable = False
    return {
        "numpy": bgr,
        "read-only": read_only,
        "negative strides": rgb[..., ::-1],
        "column order": np.asfortranarray(bgr),
        "4-D": bgr[None],
        "list": [bgr],
        "PIL": picture,
        "bytes": png.getvalue(),
        "tensor": chw,
        "contiguous tensor": chw.contiguous(),
        "4-D tensor": chw[None],
        "float": (bgr / 255).astype(np.float32),
        "float tensor": chw.float() / 255,
        "half tensor": chw.half() / 255,
    }


@pytest.mark.parametrize("model_id", ["resnet18", "efficientnet-lite0"])
def test_torch_and_onnx_agree_on_the_logits(model_id, cards, photos):
    torch_model, onnx_model = (
        AutoModel.from_pretrained(model_id, backend=backend) for backend in BACKENDS
    )
    inputs, _ = onnx_model.pre_process(list(photos.values()))
    (torch_logits,) = torch_model.forward(inputs).values()
    (onnx_logits,) = onnx_model.forward(inputs).values()

    assert np.abs(np.asarray(torch_logits) - onnx_logits).max() <= 1e-4


def test_torch_and_onnx_agree_from_the_photo_on(cards, photos):
    torch_scores, onnx_scores = (
        AutoModel.from_pretrained("efficientnet-lite0", backend=backend)(
            list(photos.values())
        ).confidence
        for backend in BACKENDS
    )

    np.testing.assert_allclose(torch_scores, onnx_scores, atol=0.03)


def test_a_batch_of_eight_equals_eight_singles(model, photos):
    images = list(photos.values()) * 2
    together = logits(model, images)
    singles = np.concatenate([logits(model, image) for image in images])

    assert together.shape == singles.shape
    assert np.abs(together - singles).max() <= 1e-4


def test_every_form_of_the_same_pixels_is_the_same_network_input(model, photos):
    given = forms(photos["chelsea"])
    found = {
        name: np.asarray(model.pre_process(image)[0]["input"])
        for name, image in given.items()
    }

    for name, batch in found.items():
        np.testing.assert_array_equal(batch, found["numpy"], err_msg=name)


def test_the_stated_order_of_channels_overrides_the_usual_one(model, photos):
    bgr = photos["coffee"]
    rgb = np.ascontiguousarray(bgr[..., ::-1])

    usual, _ = model.pre_process(bgr)
    stated, _ = model.pre_process(rgb, input_color_format="rgb")

    np.testing.assert_array_equal(
        np.asarray(usual["input"]), np.asarray(stated["input"])
    )


def test_a_call_leaves_its_images_as_they_were(model, photos):
    image = photos["astronaut"].copy()
    model(image)

    np.testing.assert_array_equal(image, photos["astronaut"])


def test_eight_threads_give_what_serial_calls_give(model, photos):
    images = list(photos.values())
    serial = [logits(model, image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda image: logits(model, image), images * 8))

    for number, found in enumerate(threaded):
        np.testing.assert_array_equal(found, serial[number % len(images)])


FORK = """
import os, signal
import numpy as np
from inference_models import AutoModel

picture = np.zeros((240, 320, 3), np.uint8)
model = AutoModel.from_pretrained("resnet18", backend={backend!r})
expected = model(picture).confidence
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    signal.alarm(30)
    again = AutoModel.from_pretrained("resnet18", backend={backend!r})
    for each in (model, again):
        np.testing.assert_allclose(each(picture).confidence, expected, rtol=1e-3)
        each.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_process_runs_the_models_that_it_was_born_with_and_ends(
    backend, run, tmp_path, monkeypatch
):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)

    assert run(FORK.format(backend=backend), tmp_path).split()[-1] == "0"


def test_a_model_that_was_pickled_predicts_the_same(model, photos):
    again = pickle.loads(pickle.dumps(model))

    assert (again.backend, again.device) == (model.backend, model.device)
    np.testing.assert_array_equal(
        logits(again, photos["coffee"]), logits(model, photos["coffee"])
    )


def settings_of_the_process():
    return {
        "random": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "products": torch.get_float32_matmul_precision(),
        "gradients": torch.is_grad_enabled(),
        "log": (logging.root.level, list(logging.root.handlers)),
        "path": (list(sys.path), Path.cwd()),
        "interrupt": signal.getsignal(signal.SIGINT),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_loading_and_calling_leave_settings_of_the_process_as_they_were(
    backend, cards, photos
):
    before = settings_of_the_process()
    AutoModel.from_pretrained("resnet18", backend=backend)(photos["coffee"])

    assert settings_of_the_process() == before


INTERRUPT = """
import signal, threading
import numpy as np
from inference_models import AutoModel, ModelClosed

signal.signal(signal.SIGINT, signal.default_int_handler)
pictures = [np.zeros((240, 320, 3), np.uint8)] * 4
model = AutoModel.from_pretrained("resnet18", backend={backend!r})
expected = model(pictures).confidence
threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
try:
    while True:
        model(pictures)
except KeyboardInterrupt:
    np.testing.assert_allclose(model(pictures).confidence, expected, atol=1e-6)
model.close()
try:
    model(pictures)
except ModelClosed:
    print("closed")
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_an_interrupt_a_model_predicts_the_same_and_closes(
    backend, run, tmp_path
):
    assert run(INTERRUPT.format(backend=backend), tmp_path) == "closed\n"


def test_mixed_sizes_keep_their_order_whatever_the_batch_size(cards, photos):
    images = list(photos.values())
    whole = AutoModel.from_pretrained("resnet18", backend="onnx")(images)
    parts = AutoModel.from_pretrained("resnet18", backend="onnx", batch_size=3)(images)

    assert len(parts) == len(images)
    np.testing.assert_array_equal(parts.class_id, whole.class_id)
    np.testing.assert_allclose(parts.confidence, whole.confidence, atol=1e-6)
