"""What a machine with a GPU is, and the bounds that it sets."""

from __future__ import annotations

import os
import platform
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gpu_turns import Bench, Call, measure, on_device
from run import processor

PACKAGES = (
    "torch",
    "transformers",
    "onnxruntime-gpu",
    "onnxruntime",
    "rfdetr",
    "numpy",
    "pillow",
)


def limits(bench: Bench, _folder: Path) -> None:
    """What the machine is, and the bounds that it sets."""
    bench.send("machine", machine(bench))
    megabytes = 8 if bench.quick else 64
    side = 512 if bench.quick else 8192
    dtype = torch.float16 if bench.on_gpu else torch.float32
    host = torch.empty(megabytes << 20, dtype=torch.uint8, pin_memory=bench.on_gpu)
    here = torch.empty_like(host, device=bench.device, pin_memory=False)
    there = torch.empty_like(here)
    matrix = torch.randn(side, side, device=bench.device).to(dtype)
    product = torch.empty_like(matrix)
    runs: dict[str, Call] = {
        "upload": lambda: here.copy_(host, non_blocking=True),
        "copy": lambda: there.copy_(here),
        "product": partial(torch.matmul, matrix, matrix, out=product),
    }
    turns = {name: on_device(bench, run) for name, run in runs.items()}
    found = measure(bench, turns, ("limits", 1))
    gigabytes = megabytes / 1024 * 1.073741824
    bench.send(
        "limits",
        {
            "upload": gigabytes / found["upload"] * 1e3,
            "copy": 2 * gigabytes / found["copy"] * 1e3,
            "product": 2 * side**3 / found["product"] / 1e9,
            "sizes": f"{megabytes} MiB; {side}×{side}, {str(dtype)[6:]}",
        },
    )


def machine(bench: Bench) -> dict[str, Any]:
    """Names and versions."""
    found = {name: _version(name) for name in PACKAGES}
    versions = ", ".join(f"{name} {v}" for name, v in found.items() if v)
    cores = f"{processor()}, {len(os.sched_getaffinity(0))} cores"
    python = f"Python {platform.python_version()}, {versions}"
    if not bench.on_gpu:
        return {"name": "cpu", "text": f"No GPU; {cores}; {python}."}
    from inference_models import hardware

    facts = torch.cuda.get_device_properties(torch.device(bench.device))
    driver = Path("/proc/driver/nvidia/version")
    words = driver.read_text("utf-8").split() if driver.exists() else []
    numbers = [word for word in words if word[:1].isdigit() and word.count(".") >= 1]
    highest = ".".join(map(str, hardware.detect().cuda or ())) or "unknown"
    text = (
        f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability "
        f"{facts.major}.{facts.minor}; driver {numbers[0] if numbers else 'unknown'}, "
        f"for CUDA up to {highest}; torch's CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}; {cores}; {python}."
    )
    return {"name": facts.name, "text": text}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
