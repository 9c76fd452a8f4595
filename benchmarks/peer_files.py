"""One model's files for all: `peer_files.py SIZE PHOTO FOLDER`, run with `rfdetr`.

Writes the checkpoint, the official package's own ONNX export of it, and the two model
packages that the peer loads. The weights are random, but every parameter differs from
its initial value, so that no part of the network is an identity; the threshold of 0.5
leaves about twenty detections on the photo.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peer_torchvision  # noqa: F401 (before torchvision is imported)
import rfdetr
import torch
from rfdetr.models.backbone import dinov2

VARIANTS = {
    "nano": "RFDETRNano",
    "small": "RFDETRSmall",
    "medium": "RFDETRMedium",
    "base": "RFDETRBase",
    "large": "RFDETRLarge",
}
DETECTIONS = 20
UNUSED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Columns that no category of COCO has, which some contestants never return."""


def main() -> None:
    """Write everything into the folder."""
    size, photo, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    model = random_model(size, np.ascontiguousarray(np.load(photo)[..., ::-1]))
    network, settings = model.model.model, vars(model.model.args)
    checkpoint = {"model": network.state_dict(), "args": argparse.Namespace(**settings)}
    torch.save(checkpoint, folder / f"checkpoint_{size}.pth")
    exported = model.export(str(folder), dynamic_batch=True, verbose=False)
    onnx_package = package(folder / "peer-onnx", size, "onnx", model.model.resolution)
    shutil.copy(exported, onnx_package / "weights.onnx")
    torch_package = package(
        folder / "peer-torch", size, "torch", model.model.resolution
    )
    # The peer knows all parameters but this buffer, which detection does not use.
    weights = {k: v for k, v in network.state_dict().items() if k != "_kp_active_mask"}
    torch.save({"model": weights}, torch_package / "weights.pth")
    Path(exported).replace(folder / "official.onnx")


def random_model(size: str, photo: np.ndarray) -> Any:
    """The official model of a size, with seeded random weights in all its layers."""
    encoder = dinov2.WindowedDinov2WithRegistersBackbone
    # Without weights of its own, base asks a host for the encoder's.
    encoder.from_pretrained = classmethod(lambda cls, _, config: cls(config))
    torch.manual_seed(0)
    model = getattr(rfdetr, VARIANTS[size])(pretrain_weights=None, device="cpu")
    network = model.model.model.eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            last = "bbox_embed" in name and "layers.2" in name
            change = torch.randn(parameter.shape, generator=noise)
            parameter.add_(change, alpha=0.1 if last else 0.02)
        network.class_embed.bias[list(UNUSED)] = -10
        scores = model.predict([photo], threshold=0.0)[0].confidence
        logits = torch.logit(torch.from_numpy(scores[DETECTIONS - 1 : DETECTIONS + 1]))
        network.class_embed.bias.sub_(logits.mean())
    return model


def package(folder: Path, size: str, backend: str, resolution: int) -> Path:
    """A model package as the peer loads it from disk, but for the weights."""
    folder.mkdir(exist_ok=True)
    files = {
        "model_config": {
            "model_architecture": "rfdetr",
            "backend_type": backend,
            "task_type": "object-detection",
        },
        "model_type": {"model_type": f"rfdetr-{size}"},
        "inference_config": {
            "network_input": network_input(resolution),
            "forward_pass": {"max_dynamic_batch_size": 16},
        },
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    names = "\n".join(f"class {number}" for number in range(91))
    (folder / "class_names.txt").write_text(names, "utf-8")
    return folder


def network_input(resolution: int) -> dict[str, Any]:
    """The preprocessing, as the peer writes it."""
    return {
        "training_input_size": {"height": resolution, "width": resolution},
        "dynamic_spatial_size_supported": False,
        "color_mode": "rgb",
        "resize_mode": "stretch",
        "input_channels": 3,
        "scaling_factor": 255,
        "normalization": [rfdetr.RFDETR.means, rfdetr.RFDETR.stds],
    }


if __name__ == "__main__":
    main()
