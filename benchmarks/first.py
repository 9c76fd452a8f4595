"""One process from start to first prediction: `first.py BACKEND ours|bare FOLDER`.

Prints its peak memory in megabytes. The bare script is what a user would write by hand
for this one model: Pillow, NumPy and the runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path


def ours(backend: str, folder: Path) -> None:
    """The same through the library."""
    from inference_models import AutoModel

    AutoModel.from_pretrained("resnet18", backend=backend)(folder / "640×427.jpg")


def bare(backend: str, folder: Path) -> None:
    """Written by hand for this model."""
    import numpy as np
    from PIL import Image

    picture = Image.open(folder / "640×427.jpg").convert("RGB")
    width, height = picture.size
    picture = picture.resize((256 * width // height, 256), Image.Resampling.BILINEAR)
    left = (picture.width - 224) // 2
    pixels = np.asarray(picture.crop((left, 16, left + 224, 240)), np.float32) / 255
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    batch = np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])
    if backend == "onnx":
        import onnxruntime

        (model,) = (folder / "cache" / "derived").glob("*/*.onnx")
        onnxruntime.InferenceSession(model).run(None, {"input": batch})
        return
    import torch
    from safetensors.torch import load_file

    from inference_models_resnet.network import ResNet

    network = ResNet(18, 1000)
    network.load_state_dict(load_file(folder / "resnet18.safetensors"))
    with torch.inference_mode():
        network.eval()(torch.from_numpy(batch))


def peak_megabytes() -> float:
    """Peak resident memory of this program alone; getrusage counts its parent's too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    run = {"ours": ours, "bare": bare}[sys.argv[2]]
    run(sys.argv[1], Path(sys.argv[3]))
    print(peak_megabytes())
