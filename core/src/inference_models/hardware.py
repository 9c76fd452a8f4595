"""What this machine has, from files and the driver library; no runtime is imported."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path

import attrs

from inference_models.errors import Unavailable

# CUdevice_attribute numbers of the CUDA driver API.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


@attrs.frozen
class Gpu:
    """One NVIDIA device as the driver numbers it (after CUDA_VISIBLE_DEVICES)."""

    name: str
    compute_capability: tuple[int, int]
    memory: int
    """Bytes."""


@attrs.frozen
class Hardware:
    """Facts that backends and `refuse` rely on."""

    cpus: int
    """Processors that this process may use."""
    gpus: tuple[Gpu, ...] = ()
    cuda: tuple[int, int] | None = None
    """Newest CUDA version that the NVIDIA driver supports, or None without a driver."""
    jetson: str | None = None
    """Model name of an NVIDIA Jetson board."""
    l4t: str | None = None
    """Its Linux for Tegra release, such as "36.4.3"."""
    apple_silicon: bool = False

    @property
    def cuda_devices(self) -> list[str]:
        """`["cuda:0", …]`, one for each NVIDIA device."""
        return [f"cuda:{number}" for number in range(len(self.gpus))]


@functools.cache
def detect() -> Hardware:
    """The facts of this machine, gathered once a process."""
    gpus, cuda = _nvidia()
    jetson, l4t = _jetson(Path("/"))
    return Hardware(
        cpus=usable_cpus(),
        gpus=gpus,
        cuda=cuda,
        jetson=jetson,
        l4t=l4t,
        apple_silicon=sys.platform == "darwin" and platform.machine() == "arm64",
    )


def usable_cpus(root: Path = Path("/")) -> int:
    """Processors this process may use: its affinity, within its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, count if quota is None else min(count, quota))


def _cgroup_quota(root: Path) -> int | None:
    v2 = _read(root / "sys/fs/cgroup/cpu.max").split()
    if len(v2) == 2 and v2[0].isdigit():
        return -(-int(v2[0]) // int(v2[1]))
    folder = root / "sys/fs/cgroup/cpu"
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return -(-int(quota) // int(period))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _jetson(root: Path) -> tuple[str | None, str | None]:
    """Board and release, as L4T writes them: "# R36 (release), REVISION: 4.3, …"."""
    release = _read(root / "etc/nv_tegra_release")
    if not release.startswith("# R"):
        return None, None
    major = release[3:].split(" ", 1)[0]
    minor = release.partition("REVISION:")[2].split(",")[0].strip()
    model = _read(root / "proc/device-tree/model").strip("\x00\n ") or "Jetson"
    return model, f"{major}.{minor}"


@functools.cache
def _first_asked_in() -> int:
    """The process that first looked for GPUs: this one, or one it was forked from."""
    return os.getpid()


def check_not_forked(device: str) -> None:
    """Raise `Unavailable` for a device that the driver gives to another process alone.

    CUDA works in no process that is forked from one in which the driver was started,
    also if that only looked for GPUs.
    """
    if device.startswith("cuda") and _first_asked_in() != os.getpid():
        raise Unavailable(
            "CUDA does not survive fork(), and this process was forked from one that "
            "used it or looked for GPUs; start the process with multiprocessing's "
            "'spawn', and load the model there"
        )


def _nvidia() -> tuple[tuple[Gpu, ...], tuple[int, int] | None]:
    """GPUs and CUDA version by the driver library; nothing where it does not answer."""
    _first_asked_in()
    driver = driver_library()
    if driver is None or driver.cuInit(0) != 0:
        return (), None
    version, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return (), None
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return (), None
    gpus = tuple(_gpu(driver, number) for number in range(count.value))
    return gpus, (version.value // 1000, version.value % 1000 // 10)


def driver_library() -> ctypes.CDLL | None:
    """NVIDIA's driver as a library, or None where there is none."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = (
        _attribute(driver, device, _COMPUTE_CAPABILITY_MAJOR),
        _attribute(driver, device, _COMPUTE_CAPABILITY_MINOR),
    )
    return Gpu(name.value.decode(errors="replace"), capability, memory.value)


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value
