"""Which TensorRT is used, told from files of packages that are never imported."""

from __future__ import annotations

import importlib
import sys

import pytest

from inference_models import Unavailable
from inference_models_trt.installed import find_installed

BOMB = "raise RuntimeError('imported')\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages, and no other TensorRT."""
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_libs", "tensorrt_rtx_libs"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    folder = tmp_path / "site"
    folder.mkdir()
    kept = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(folder), *kept])
    importlib.invalidate_caches()
    return folder


@pytest.fixture
def install(site):
    """Put a TensorRT there: of a distribution, or of a system's own package."""

    def install(module, version, distribution=None, libraries=True, text=BOMB):
        package = site / module
        package.mkdir()
        (package / "__init__.py").write_text(text)
        if libraries:
            (site / f"{module}_libs").mkdir()
            (site / f"{module}_libs" / "__init__.py").write_text(BOMB)
        if distribution is not None:
            facts = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
            facts.mkdir()
            named = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
            (facts / "METADATA").write_text(named)

    return install


@pytest.mark.parametrize(
    ("distribution", "cuda"),
    [("tensorrt", None), ("tensorrt-cu12", 12), ("tensorrt-cu13-bindings", 13)],
)
def test_version_and_cuda_are_those_of_the_distribution(
    install, machine, distribution, cuda
):
    install("tensorrt", "10.13.0.35", distribution)
    found = find_installed(machine((9, 0)))

    assert (found.module, found.version, found.cuda) == ("tensorrt", "10.13.0.35", cuda)


def test_a_systems_own_package_tells_its_version_in_its_code(install, machine, site):
    text = "__version__ = '10.3.0'\n" + BOMB
    install("tensorrt", "", libraries=False, text=text)
    (site / "tensorrt" / "tensorrt.so").write_bytes(b"")

    assert find_installed(machine((8, 7))).version == "10.3.0"


def test_stubs_are_no_tensorrt(install, machine):
    install("tensorrt", "10.13.0.35", "tensorrt", libraries=False)
    with pytest.raises(Unavailable, match="TensorRT is not installed; pip install"):
        find_installed(machine((9, 0)))


@pytest.mark.parametrize(
    ("module", "version"), [("tensorrt", "8.6.1.6"), ("tensorrt_rtx", "1.0.0.21")]
)
def test_an_old_one_is_too_old(install, machine, module, version):
    install(module, version, module.replace("_", "-"))
    with pytest.raises(Unavailable, match=rf"{version} is older than .*; pip install"):
        find_installed(machine((8, 9)))


@pytest.mark.parametrize(
    ("gpus", "module"),
    [
        ([], "tensorrt_rtx"),
        ([(8, 9)], "tensorrt_rtx"),
        ([(9, 0)], "tensorrt"),
        ([(8, 9), (9, 0)], "tensorrt"),
    ],
    ids=str,
)
def test_of_two_rtx_is_used_where_it_has_code_for_all_gpus(
    install, machine, gpus, module
):
    install("tensorrt", "11.4.0.106", "tensorrt-cu13")
    install("tensorrt_rtx", "1.7.1.116", "tensorrt-rtx-cu13")

    assert find_installed(machine(*gpus)).module == module


@pytest.mark.parametrize(
    ("gpus", "cuda", "advice"),
    [
        ([], None, "pip install tensorrt-rtx-cu13, which builds engines for other"),
        ([(9, 0)], (12, 4), "pip install tensorrt-cu12$"),
        ([(9, 0)], (13, 0), "pip install tensorrt-cu13$"),
        ([(8, 9)], (13, 1), "pip install tensorrt-cu13, or .* tensorrt-rtx-cu13$"),
    ],
    ids=str,
)
def test_what_to_type_fits_the_gpus_and_the_driver(site, machine, gpus, cuda, advice):
    with pytest.raises(Unavailable, match=f"TensorRT is not installed; {advice}"):
        find_installed(machine(*gpus, cuda=cuda))


def test_a_driver_that_is_too_old_is_told(install, machine):
    install("tensorrt", "11.4.0.106", "tensorrt-cu13")
    facts = machine((9, 0), cuda=(12, 4))

    assert find_installed(facts).refuse_driver(facts) == (
        "TensorRT 11.4.0.106 is built for CUDA 13, and the driver supports CUDA 12.4; "
        "pip install tensorrt-cu12"
    )
    assert find_installed(facts).refuse_driver(machine((9, 0), cuda=(13, 0))) is None
