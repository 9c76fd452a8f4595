"""Linear layers on the CPU, multiplied by oneDNN from weights in its own order.

torch multiplies float32 matrices with MKL, which runs at half its speed on processors
of AMD; oneDNN, which comes with torch as well, does not. Packing once saves reordering
the weights in each call.
"""

from __future__ import annotations

import itertools
import platform

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.GELU: "gelu", nn.ReLU: "relu"}


def can_pack() -> bool:
    """Whether this is an x86 processor, and torch has oneDNN."""
    # Elsewhere torch hands float32 matrices to a library of the processor's maker.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available()


def pack_linears(module: nn.Module) -> nn.Module:
    """The same module with each float32 linear layer packed, in place where it can.

    In an `nn.Sequential` the GELU or ReLU behind a layer becomes a part of it.
    """
    if _packs(module):
        return PackedLinear(module)
    for name, child in list(module.named_children()):
        setattr(module, name, pack_linears(child))
    # A subclass with a `forward` of its own may have another order.
    if type(module).forward is nn.Sequential.forward:
        _fuse_activations(module)
    return module


def _packs(module: nn.Module) -> bool:
    """Whether it is a float32 linear layer that nothing is hooked to."""
    if type(module) is not nn.Linear or module.weight.dtype != torch.float32:
        return False
    return not _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _fuse_activations(sequence: nn.Module) -> None:
    pairs = itertools.pairwise(list(sequence.named_children()))
    for (_, layer), (name, behind) in pairs:
        kind = _ACTIVATIONS.get(type(behind))
        if kind and isinstance(layer, PackedLinear) and not _is_hooked(behind):
            layer.fuse(kind, getattr(behind, "approximate", ""))
            setattr(sequence, name, nn.Identity())


class PackedLinear(nn.Module):
    """`nn.Linear` for inference; its weights are unpacked where they are asked for."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._activation = ("none", "")
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Tensor:
        """A dense copy of the weights (out_features, in_features)."""
        return self._packed.to_dense()

    def fuse(self, activation: str, algorithm: str) -> None:
        """Apply an activation, by oneDNN's name, to what is multiplied."""
        self._activation = (activation, algorithm)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        activation, algorithm = self._activation
        return torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, activation, [], algorithm
        )
