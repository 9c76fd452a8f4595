"""A network small enough to think through, and its weights in every kind of file."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from inference_models import Architecture, Artifact, Bundle, ModelCard, Plan, TensorSpec
from inference_models_torch import TorchBackend

SIZE = 32


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
        self.head = nn.Linear(8, 5)
        self.register_buffer("scale", torch.tensor(3.0), persistent=False)

    def forward(self, images):
        features = torch.relu(self.norm(self.conv(images))).mean(dim=(2, 3))
        return self.head(self.block(features)) * self.scale


class Tiny(Architecture):
    name = "tiny"
    fp32_modules = ("block", "block.1")

    def modules(self, loaded=None):
        return {"main": TinyNet()}

    def postprocess(self, outputs, frames, options, ops):
        return [ops.host(outputs["output"])]


class Stateful(nn.Module):
    def forward(self, tokens, total):
        total = total + tokens.sum(dim=1, keepdim=True)
        return {"unused": total, "state.total": total, "logits": total * 2.0}


class Counting(Architecture):
    """A graph with state, whose outputs come by name."""

    name = "counting"

    def modules(self, loaded=None):
        return {"step": Stateful()}

    def signature(self, graph):
        state = {"state.total": TensorSpec("int64", ("batch", 1))}
        return (
            {"tokens": TensorSpec("int64", ("batch", "length")), **state},
            {"logits": TensorSpec("float32", ("batch", 1)), **state},
        )

    def postprocess(self, outputs, frames, options, ops):
        return []


def tiny_state():
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(value.shape, generator=generator) - 0.4
        for name, value in TinyNet().state_dict().items()
        if value.is_floating_point()
    }
    state["norm.running_var"] += 1
    return state


def bundle_of(path, architecture="tiny", graph="main", **config):
    artifact = Artifact("torch", {graph: path.name})
    preprocessing = {"size": [SIZE, SIZE], **config}
    card = ModelCard(
        "tiny",
        architecture,
        "classification",
        (artifact,),
        config={"preprocessing": preprocessing},
    )
    return Bundle(card, artifact, path.parent)


class Workshop:
    """What tests make files and sessions with."""

    Net, Tiny, Counting = TinyNet, Tiny, Counting
    state = staticmethod(tiny_state)
    bundle = staticmethod(bundle_of)

    def __init__(self, folder: Path):
        self.folder = folder

    def safetensors(self, state=None, name="tiny.safetensors"):
        save_file(self.state() if state is None else state, self.folder / name)
        return self.folder / name

    def pickle(self, content, name="tiny.pth", **settings):
        torch.save(content, self.folder / name, **settings)
        return self.folder / name

    def session(self, path, precision="fp32", device="cpu", **settings):
        bundle = self.bundle(path)
        backend = TorchBackend(**settings)
        return backend.open(bundle, Tiny(bundle), Plan(device, precision))["main"]

    def reference(self, batch):
        """What the network gives when torch alone loads and runs it."""
        net = TinyNet()
        net.load_state_dict(self.state(), strict=False)
        with torch.no_grad():
            return net.eval()(torch.as_tensor(batch)).numpy()


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        reason = f"torch {torch.__version__} on {sys.platform} finds no NVIDIA GPU"
        for item in items:
            if item.get_closest_marker("gpu") and "plugins/torch" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))
