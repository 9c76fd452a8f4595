"""`inference-models doctor`: what this machine and this installation offer."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import typer

from inference_models import hardware
from inference_models.auto import AutoModel
from inference_models.download.store import cache_root, offline
from inference_models.errors import DownloadFailed, Unavailable, told
from inference_models.interfaces import Backend
from inference_models.negotiation.negotiate import advice_of
from inference_models.registry import Registry, installed


def command() -> None:
    """Show hardware, plugins, backends, advice, and what is set aside and why."""
    registry = installed()
    for line in (*_machine(), *_plugins(registry), *_backends(registry), *_weights()):
        typer.echo(line)


def _machine() -> Iterator[str]:
    facts = hardware.detect()
    yield f"python    {platform.python_version()} on {sys.platform}, {facts.cpus} CPUs"
    for number, gpu in enumerate(facts.gpus):
        capability = ".".join(map(str, gpu.compute_capability))
        memory = gpu.memory / 2**30
        yield f"gpu       cuda:{number}, {gpu.name}, sm {capability}, {memory:.0f} GiB"
    if facts.cuda:
        yield f"driver    CUDA {facts.cuda[0]}.{facts.cuda[1]}"
    elif not facts.gpus:
        yield "gpu       none that the NVIDIA driver library reports"
    if facts.jetson:
        yield f"jetson    {facts.jetson}, L4T {facts.l4t}"


def _plugins(registry: Registry) -> Iterator[str]:
    for plugin in registry.plugins:
        yield f"plugin    {plugin.name} ({plugin.distribution} {plugin.version})"
    for aside in registry.set_aside:
        yield f"set aside {aside}"


def _backends(registry: Registry) -> Iterator[str]:
    classes = sorted(registry.backends.values(), key=lambda cls: (-cls.rank, cls.name))
    if not classes:
        yield "backend   none; `explain ID` says what to install for a model"
    for cls in classes:
        yield f"backend   {cls.name}: {_offer(cls)}"
    sentences = [sentence for cls in classes for sentence in advice_of(cls())]
    for sentence in dict.fromkeys(sentences):
        yield f"advice    {sentence}"


def _offer(cls: type[Backend]) -> str:
    try:
        return ", ".join(cls().devices()) or "no device here"
    except Unavailable as error:
        return f"unavailable: {error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what doctor reports
        return f"fails: {told(error)}"


def _weights() -> Iterator[str]:
    yield f"models    {len(AutoModel.models())} known ids"
    network = "switched off" if offline() else "allowed"
    yield f"cache     {_cache()}, network {network}"


def _cache() -> str:
    try:
        return str(cache_root())
    except DownloadFailed as error:
        return f"nowhere ({error})"
