"""Arrays of any library as ONNX Runtime reads them."""

from __future__ import annotations

import numpy as np

from inference_models import Array
from inference_models.images import to_host


def host_array(array: Array) -> np.ndarray:
    """The array in host memory: copied only if its memory is scattered."""
    host = to_host(array)
    return np.asarray(host, host.dtype.newbyteorder("="), order="C")
