"""Linear layers on the CPU, multiplied by oneDNN from weights in its own order.

torch multiplies float32 matrices with MKL, which runs at half its speed on processors
of AMD; oneDNN, which comes with torch as well, does not. Packing once saves reordering
the weights in each call.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn


def can_pack() -> bool:
    """Whether this is an x86 processor, and torch has oneDNN."""
    # Elsewhere torch hands float32 matrices to a library of the processor's maker.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and torch.backends.mkldnn.is_available()


def pack_linears(module: nn.Module) -> nn.Module:
    """The same module with each float32 linear layer packed, in place where it can."""
    if _packs(module):
        return PackedLinear(module)
    for name, child in list(module.named_children()):
        setattr(module, name, pack_linears(child))
    return module


def _packs(module: nn.Module) -> bool:
    """Whether it is a float32 linear layer that nothing is hooked to."""
    if type(module) is not nn.Linear or module.weight.dtype != torch.float32:
        return False
    return not (module._forward_pre_hooks or module._forward_hooks)


class PackedLinear(nn.Module):
    """`nn.Linear` for inference; its weights are unpacked where they are asked for."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> Tensor:
        """A dense copy of the weights (out_features, in_features)."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self.bias, "none", [], ""
        )
