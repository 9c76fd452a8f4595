"""Importing this lets torchvision be imported where its compiled operators do not load.

The package index has torchvision for Linux with CUDA alone. Beside a CPU build of
torch its library of operators cannot be loaded, and `import torchvision` then fails
where it describes operators that nobody declared. Once declared, they are never called:
what is used in a prediction (resize, normalize, to_tensor) is Python over torch's own
operators, and runs unchanged. Where the operators do load, nothing happens here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch


def declare() -> torch.library.Library | None:
    """Declare the operators that torchvision describes at import; None if they load."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return None
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
    return declared


# The declarations last as long as this object.
DECLARED = declare()
