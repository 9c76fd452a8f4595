"""The tests that every backend has to pass, for each kind of file."""

import pytest
import torch
from safetensors.numpy import save_file

from inference_models import Artifact, Bundle
from inference_models.testing import BackendTests, ToyArchitecture, toy_bundle
from inference_models_torch import TorchBackend


class TestSafetensors(BackendTests):
    backend = TorchBackend
    runtime = ("torch",)

    @pytest.fixture
    def toy(self, tmp_path) -> Bundle:
        save_file(ToyArchitecture.tensors(), tmp_path / "toy.safetensors")
        return toy_bundle(tmp_path, Artifact("torch", {"main": "toy.safetensors"}))


class TestPickle(BackendTests):
    backend = TorchBackend
    runtime = ("torch",)

    @pytest.fixture
    def toy(self, tmp_path) -> Bundle:
        tensors = map(torch.from_numpy, ToyArchitecture.tensors().values())
        state = dict(zip(ToyArchitecture.tensors(), tensors, strict=True))
        torch.save({"model": state, "epoch": 3}, tmp_path / "toy.pth")
        return toy_bundle(tmp_path, Artifact("torch", {"main": "toy.pth"}))
