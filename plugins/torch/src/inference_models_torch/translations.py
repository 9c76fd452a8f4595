"""Operators in ONNX that torch's exporter writes badly, or not at all.

Its attention moves axes back and forth to transpose the keys, which ONNX Runtime does
not undo: 2 % of a detection transformer's time on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx import TensorProto
from onnxscript import opset20 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    size = query.shape[-1]
    if attn_mask is not None or is_causal or enable_gqa or not isinstance(size, int):
        return aten_scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
    factor = op.CastLike(size**-0.5 if scale is None else scale, query)
    keys = op.Transpose(key, perm=[0, 1, 3, 2])
    weights = op.Softmax(op.MatMul(op.Mul(query, factor), keys), axis=-1)
    return op.MatMul(weights, value)


def _is_all_true(values: Any) -> Any:
    """Whether a boolean tensor holds no False, which some networks assert."""
    least = op.ReduceMin(op.Cast(values, to=TensorProto.INT32), keepdims=0)
    return op.Cast(least, to=TensorProto.BOOL)


TRANSLATIONS = {
    torch.ops.aten._is_all_true.default: _is_all_true,
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
}
"""For the exporter's `custom_translation_table`."""
