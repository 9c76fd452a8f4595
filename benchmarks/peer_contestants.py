"""Who is measured, and how each is called: as its documentation says, on defaults.

Each takes the same pixels in the order of channels that it documents, and the same
confidence threshold, and is imported only in the environment that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

THRESHOLD = 0.5
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Job:
    """What a worker is to load: a contestant, a size, and the files of that size."""

    name: str
    size: str
    batch: int
    photo: str
    checkpoint: str
    official_onnx: str
    peer_onnx: str
    peer_torch: str

    def photos(self, *, rgb: bool) -> list[np.ndarray]:
        """The batch: one photo, as often as asked."""
        photo = np.load(self.photo)
        return [np.ascontiguousarray(photo[..., ::-1]) if rgb else photo] * self.batch


@dataclass(frozen=True)
class Contestant:
    """A loaded model."""

    call: Callable[[], Any]
    """From photos to detections."""
    run: Callable[[], Any]
    """The network alone, on the prepared batch."""
    found: Callable[[Any], Sequence[float]]
    """The first photo's confidences in what a call returned, highest first."""


@dataclass(frozen=True)
class Kind:
    """A contestant that can be loaded."""

    environment: str
    title: str
    distributions: tuple[str, ...]
    load: Callable[[Job], Contestant]


def ours(job: Job, backend: str) -> Contestant:
    """This library on one of its backends."""
    from inference_models import AutoModel

    model = AutoModel.from_pretrained(job.checkpoint, backend=backend)
    photos = job.photos(rgb=False)
    inputs, _ = model.pre_process(photos)
    return Contestant(
        lambda: model(photos, confidence=THRESHOLD),
        lambda: model.forward(inputs),
        lambda results: results[0].confidence,
    )


def bare(job: Job) -> Contestant:
    """ONNX Runtime's own session on the prepared batch; nothing around it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(job.official_onnx)
    batch = prepare(job.photos(rgb=True), session.get_inputs()[0].shape[2])
    run = partial(session.run, None, {"input": batch})
    return Contestant(run, run, lambda outputs: select(*outputs)[0][1])


def lean(job: Job) -> Contestant:
    """What one would write by hand for this one model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(job.official_onnx)
    side = session.get_inputs()[0].shape[2]
    photos = job.photos(rgb=True)
    sizes = [(photo.shape[1], photo.shape[0]) for photo in photos]

    def call() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        outputs = session.run(None, {"input": prepare(photos, side)})
        return select(*outputs, sizes)

    run = partial(session.run, None, {"input": prepare(photos, side)})
    return Contestant(call, run, lambda results: results[0][1])


def prepare(photos: list[np.ndarray], side: int) -> np.ndarray:
    """Pillow's resize with antialias, and one multiplication and addition a channel."""
    from PIL import Image

    batch = np.empty((len(photos), 3, side, side), np.float32)
    scale, shift = 1 / (255 * STD), -MEAN / STD
    for planes, photo in zip(batch, photos, strict=True):
        picture = Image.fromarray(photo)
        resized = picture.resize((side, side), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized)
        for channel, plane in enumerate(planes):
            np.multiply(pixels[..., channel], scale[channel], out=plane)
            plane += shift[channel]
    return batch


def select(
    boxes: np.ndarray, logits: np.ndarray, sizes: Sequence[tuple[int, int]] = ((1, 1),)
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes in pixels, confidences and classes of each photo, best first."""
    results = []
    queries, classes = logits.shape[1:]
    scores = 1 / (1 + np.exp(-logits.reshape(len(logits), -1)))
    for score, box, size in zip(scores, boxes, sizes, strict=False):
        kept = np.flatnonzero(score > THRESHOLD)
        kept = kept[np.argsort(-score[kept], kind="stable")][:queries]
        centre, half = np.split(box[kept // classes], 2, axis=1)
        half = half / 2
        corners = np.hstack([centre - half, centre + half]).clip(0, 1)
        results.append((corners * np.float32(size * 2), score[kept], kept % classes))
    return results


def official(job: Job, *, traced: bool) -> Contestant:
    """The official package's `predict`, as loaded or after its own optimisation."""
    import peer_torchvision  # noqa: F401 (before torchvision is imported)
    import rfdetr
    import torch

    variant = getattr(rfdetr, f"RFDETR{job.size.capitalize()}")
    model = variant(pretrain_weights=job.checkpoint, device="cpu")
    if traced:
        model.inference(batch_size=job.batch)
    network = model.model.inference_model if traced else model.model.model.eval()
    photos = job.photos(rgb=True)
    batch = torch.from_numpy(prepare(photos, model.model.resolution))
    return Contestant(
        lambda: model.predict(photos, threshold=THRESHOLD),
        torch.inference_mode()(lambda: network(batch)),
        lambda results: results[0].confidence,
    )


def transformers(job: Job) -> Contestant:
    """Transformers' own model and image processor on the same weights."""
    import peer_torchvision  # noqa: F401 (before torchvision is imported)
    import torch

    network, processor = transformers_model(job.checkpoint)
    photos = job.photos(rgb=True)
    sizes = [photo.shape[:2] for photo in photos]

    @torch.inference_mode()
    def call() -> Any:
        inputs = processor(images=photos, return_tensors="pt")
        return processor.post_process_object_detection(
            network(**inputs), threshold=THRESHOLD, target_sizes=sizes
        )

    batch = processor(images=photos, return_tensors="pt")["pixel_values"]
    run = torch.inference_mode()(lambda: network(batch))
    return Contestant(call, run, lambda results: results[0]["scores"].tolist())


def transformers_model(checkpoint: str) -> tuple[Any, Any]:
    """The network with an official checkpoint's weights, and its image processor."""
    import argparse

    import torch
    from transformers import RfDetrForObjectDetection
    from transformers.models.rf_detr import RfDetrImageProcessor

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights, settings = content["model"], content["args"]
    del weights["_kp_active_mask"]
    classes = len(weights["class_embed.bias"])
    network = RfDetrForObjectDetection.from_pretrained(
        None, config=transformers_config(settings, classes), state_dict=weights
    )
    side = {"height": settings.resolution, "width": settings.resolution}
    return network.eval(), RfDetrImageProcessor(size=side, do_pad=False)


def transformers_config(settings: Any, classes: int) -> Any:
    """Transformers' names for the settings in an official checkpoint."""
    from transformers import RfDetrConfig, RfDetrDinov2Config

    encoder = RfDetrDinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        patch_size=settings.patch_size,
        image_size=settings.patch_size * settings.positional_encoding_size,
        num_windows=settings.num_windows,
        out_features=[f"stage{stage}" for stage in settings.out_feature_indexes],
    )
    return RfDetrConfig(
        backbone_config=encoder,
        decoder_layers=settings.dec_layers,
        decoder_n_points=settings.dec_n_points,
        # Its default, 1e-5, is not what the weights were trained with.
        layer_norm_eps=1e-6,
        num_labels=classes,
    )


def peer(job: Job, backend: str, *, traced: bool = False) -> Contestant:
    """The other project named inference-models, on a model package from disk."""
    import peer_torchvision  # noqa: F401 (before torchvision is imported)
    import torch

    from inference_models import AutoModel

    package = {"onnx": job.peer_onnx, "torch": job.peer_torch}[backend]
    model = AutoModel.from_pretrained(package, device="cpu")
    if traced:
        model.optimize_for_inference(batch_size=job.batch)
    photos = job.photos(rgb=False)
    batch, _ = model.pre_process(photos)
    return Contestant(
        lambda: model(photos, confidence=THRESHOLD),
        torch.inference_mode()(lambda: model.forward(batch)),
        lambda results: results[0].confidence.tolist(),
    )


OURS = ("inference-models-core", "inference-models-rfdetr", "numpy", "pillow")
OFFICIAL = ("rfdetr", "torch", "torchvision", "numpy")
PEER = ("inference-models", "torch", "torchvision", "numpy", "pillow")
CONTESTANTS = {
    "ours-onnx": Kind(
        "ours",
        "ours, onnx",
        (*OURS, "onnxruntime"),
        partial(ours, backend="onnx"),
    ),
    "ours-torch": Kind(
        "ours", "ours, torch", (*OURS, "torch"), partial(ours, backend="torch")
    ),
    "bare-onnx": Kind(
        "ours", "`session.run` alone", ("onnxruntime", "numpy", "pillow"), bare
    ),
    "lean-onnx": Kind(
        "ours",
        "Pillow + NumPy + `session.run`",
        ("onnxruntime", "numpy", "pillow"),
        lean,
    ),
    "official": Kind(
        "official", "rfdetr, eager", OFFICIAL, partial(official, traced=False)
    ),
    "official-traced": Kind(
        "official", "rfdetr, traced", OFFICIAL, partial(official, traced=True)
    ),
    "transformers": Kind(
        "official",
        "transformers",
        ("transformers", "torch", "torchvision", "numpy"),
        transformers,
    ),
    "peer-onnx": Kind(
        "peer",
        "the peer, onnx",
        (*PEER, "onnxruntime"),
        partial(peer, backend="onnx"),
    ),
    "peer-torch": Kind("peer", "the peer, torch", PEER, partial(peer, backend="torch")),
    "peer-torch-traced": Kind(
        "peer",
        "the peer, torch traced",
        PEER,
        partial(peer, backend="torch", traced=True),
    ),
}
