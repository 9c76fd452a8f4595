"""Normalisations of a checkpoint, folded into the convolutions before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from inference_models import InvalidWeights
from inference_models_resnet import layout as names
from inference_models_resnet.layout import Layout, convolutions

_EPSILON = 1e-5  # what ResNets are trained with; files do not say it


def folded(
    tensors: Mapping[str, Tensor], layout: Layout, path: Path
) -> dict[str, Tensor]:
    """A checkpoint's tensors for a network whose convolutions have biases.

    Counters of batches are dropped; `InvalidWeights`, with the file's path, where any
    other tensor is missing, unknown or of another shape.
    """
    counters = {f"{norm}.{names.COUNTER}" for _, norm, _ in convolutions(layout)}
    kept = {name: tensors[name] for name in tensors if name not in counters}
    problems = list(_problems(kept, dict(names.tensors(layout))))
    if problems:
        raise _misfit(path, layout, problems)
    for conv, norm, _ in convolutions(layout):
        statistics = [kept.pop(f"{norm}.{each}") for each in names.STATISTICS]
        try:
            parts = _fold(kept[f"{conv}.weight"], *statistics)
        except RuntimeError as error:
            reason = f"has {conv}.weight or {norm} of kinds that torch cannot convert"
            raise _misfit(path, layout, [reason]) from error
        kept[f"{conv}.weight"], kept[f"{conv}.bias"] = parts
    return kept


def without_norms(network: nn.Module, layout: Layout) -> nn.Module:
    """The same network with a bias where it had a normalisation."""
    for conv, norm, shape in convolutions(layout):
        network.get_submodule(conv).bias = nn.Parameter(torch.empty(shape[0]))
        network.set_submodule(norm, nn.Identity())
    return network.eval()


def _fold(
    weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does both; float32, made in float64."""
    factor = scale.double() / (variance.double() + _EPSILON).sqrt()
    bias = shift.double() - mean.double() * factor
    scaled = weight.to(torch.float64, copy=True).mul_(factor[:, None, None, None])
    return scaled.float(), bias.float()


def _problems(
    found: Mapping[str, Tensor], wanted: Mapping[str, names.Shape]
) -> Iterator[str]:
    for name in sorted(wanted.keys() - found.keys()):
        yield f"lacks {name}"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"has unknown {name!r:.80}"
    for name in sorted(wanted.keys() & found.keys()):
        shape = tuple(found[name].shape)
        if shape != wanted[name]:
            yield f"has {name} {shape} instead of {wanted[name]}"
        if found[name].is_complex():  # torch would drop the imaginary part
            yield f"has complex {name}"


def _misfit(path: Path, layout: Layout, problems: list[str]) -> InvalidWeights:
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return InvalidWeights(
        f"'{path}' does not fit ResNet-{layout.depth}: it "
        f"{'; it '.join(problems[:3])}{more}; is it of another model?"
    )
