"""Attention as it is exported: what torch computes, in as few operators as it takes."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from inference_models import TensorSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from inference_models_torch import export  # noqa: E402

SPEC = TensorSpec("float32", ("batch", 6, 16))


class Attention(nn.Module):
    """Queries, keys and values are the same tokens, in two heads."""

    def __init__(self, **settings):
        super().__init__()
        self.settings = settings

    def forward(self, tokens):
        heads = tokens.unflatten(-1, (2, 8)).transpose(1, 2)
        found = scaled_dot_product_attention(heads, heads * 2, heads, **self.settings)
        return found.transpose(1, 2).flatten(2)


def written(module, folder):
    path = folder / "attention.onnx"
    signature = ({"tokens": SPEC}, {"output": SPEC})
    whole = export._Positional(module, signature, torch.float32)
    with export._quiet():
        export._write(whole, signature, ["output"], path)
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale": 0.5},
        {"is_causal": True},
        {"attn_mask": torch.eye(6, dtype=torch.bool)},
        {"attn_mask": torch.linspace(-1, 1, 36).view(6, 6)},
    ],
)
def test_gives_what_torch_gives(settings, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    module = Attention(**settings)
    path = written(module, tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        tokens = torch.randn(batch, 6, 16, generator=torch.Generator().manual_seed(0))
        (found,) = session.run(None, {"tokens": tokens.numpy()})

        expected = module(tokens)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)


def test_takes_two_products_and_one_transposition_of_the_keys(tmp_path):
    graph = onnx.load(written(Attention(), tmp_path)).graph
    count = Counter(node.op_type for node in graph.node)

    assert (count["MatMul"], count["Softmax"]) == (2, 1)
    assert count["Transpose"] <= 5  # one for each of three, one for keys, and back
