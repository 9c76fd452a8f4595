"""The tests that every backend has to pass; those of sessions need an NVIDIA GPU."""

from __future__ import annotations

import attrs
import pytest

from inference_models import Bundle, Plan
from inference_models.testing import BackendTests, ToyArchitecture
from inference_models_trt import TrtBackend


class Engines(BackendTests):
    backend = TrtBackend
    runtime = ("tensorrt", "tensorrt_rtx", "cuda")

    @staticmethod
    def engine_of(source, folder) -> Bundle:
        """The toy's ONNX file as an engine for the first GPU."""
        plan = Plan("cuda:0", "fp32", source.artifact.batch)
        architecture = ToyArchitecture(source)
        artifact = TrtBackend().derive(
            source, architecture, plan, folder, lambda what, share: None
        )
        return attrs.evolve(source, artifact=artifact, folder=folder)


class TestFreeBatch(Engines):
    @pytest.fixture
    def toy(self, source, tmp_path_factory) -> Bundle:
        return self.engine_of(source, tmp_path_factory.mktemp("engine"))

    @pytest.fixture
    def source(self, onnx_toy) -> Bundle:
        return onnx_toy()


class TestFixedBatch(Engines):
    @pytest.fixture
    def toy(self, source, tmp_path_factory) -> Bundle:
        return self.engine_of(source, tmp_path_factory.mktemp("engine"))

    @pytest.fixture
    def source(self, onnx_toy) -> Bundle:
        return onnx_toy(batch=2)
