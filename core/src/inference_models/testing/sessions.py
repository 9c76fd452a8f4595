"""Tests of sessions: they compute the toy, and keep nothing of a call."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import attrs
import numpy as np
import pytest

from inference_models.batching import wrapped
from inference_models.card import Bundle, Facts, Plan, TensorSpec
from inference_models.errors import (
    InferenceModelsError,
    InvalidWeights,
    MissingDependency,
    ModelClosed,
    Unavailable,
)
from inference_models.images import read_images
from inference_models.interfaces import Backend, Operations, Session
from inference_models.lending import operations_of
from inference_models.prepare import prepare
from inference_models.registry import installed
from inference_models.testing.negotiation import NegotiationTests
from inference_models.testing.pictures import FORMS, as_form, picture
from inference_models.testing.toy import SIZE, ToyArchitecture

Folders = pytest.TempPathFactory
CheckOutput = Callable[[Any, np.ndarray], None]

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.3}

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a web page": lambda content: b"<!DOCTYPE html><title>403 Forbidden</title>" * 9,
}
FOREIGN = {
    "empty": b"",
    "text": b"these are no weights\n" * 50,
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64),
    "zip": b"PK\x05\x06" + bytes(18),
    "zeros": bytes(4096),
}


def tolerance(precision: str) -> float:
    """Largest difference to the toy's outputs, which are about 1."""
    return TOLERANCES.get(precision, TOLERANCES["int8"])


def batch_of(count: int, seed: int = 0) -> np.ndarray:
    """Made-up inputs of the toy, float32 (count, 3, 8, 8) in 0–1."""
    values = np.random.default_rng(seed).random((count, 3, SIZE, SIZE))
    return values.astype(np.float32)


class SessionTests(NegotiationTests):
    """A backend opens the toy, and its sessions are safe to share and to close."""

    @contextlib.contextmanager
    def opened(self, bundle: Bundle, plan: Plan) -> Iterator[Mapping[str, Session]]:
        """The sessions of a bundle as its architecture sees them, closed at the end."""
        made, artifact = self.made(), bundle.artifact
        sessions = wrapped(
            made.open(bundle, ToyArchitecture(bundle), plan),
            artifact.rename,
            artifact.batch,
            operations_of(made, plan.device, installed()).host,
        )
        try:
            yield sessions
        finally:
            for session in sessions.values():
                session.close()

    @pytest.fixture
    def source(self, toy: Bundle) -> Bundle:
        """The toy in a format that `derive` reads; by default `toy` itself."""
        return toy

    @pytest.fixture
    def session(self, toy: Bundle, device: str) -> Iterator[Session]:
        """The toy's graph in its artifact's own precision."""
        with self.opened(toy, plan_of(toy, device)) as sessions:
            yield sessions["main"]

    @pytest.fixture
    def operations(self, device: str) -> Operations:
        """What surrounds the toy."""
        return operations_of(self.made(), device, installed())

    @pytest.fixture
    def check_output(self, toy: Bundle, operations: Operations) -> CheckOutput:
        """Asserts that an output is the toy's, as far as its precision allows."""
        limit = tolerance(toy.artifact.precision)
        return lambda output, batch: check_toy(operations.host(output), batch, limit)

    @pytest.fixture
    def count(self, toy: Bundle) -> int:
        """Images that the graph takes as they are: core copies what it splits."""
        return count_of(toy)

    def test_opens_a_session_for_each_graph(self, toy: Bundle, device: str) -> None:
        """Graphs go by the names of the artifact."""
        with self.opened(toy, plan_of(toy, device)) as sessions:
            assert sessions.keys() == toy.artifact.graphs.keys()

    def test_describes_the_tensors_of_the_graph(self, session: Session) -> None:
        """Core makes batches of the dtype and the size that the specs give."""
        shape = session.inputs["input"].shape

        assert list(session.inputs) == ["input"]
        assert list(session.outputs) == ["output"]
        assert session.inputs["input"].dtype == "float32"
        assert session.outputs["output"].dtype == "float32"
        assert len(shape) == 4
        sides = zip(shape[1:], (3, SIZE, SIZE), strict=True)
        assert all(isinstance(side, str) or side == known for side, known in sides)

    @pytest.mark.parametrize("images", [1, 3, 8])
    def test_computes_the_toy(
        self, session: Session, check_output: CheckOutput, images: int
    ) -> None:
        """Batches of any size that the artifact allows, and of others through core."""
        batch = batch_of(images)
        outputs = session(input=batch)

        assert list(outputs) == ["output"]
        check_output(outputs["output"], batch)

    @pytest.mark.parametrize("form", FORMS)
    def test_takes_arrays_of_other_libraries(
        self, session: Session, check_output: CheckOutput, count: int, form: str
    ) -> None:
        """An array is numpy's, or anything that speaks DLPack."""
        batch = batch_of(count)
        outputs = session(input=as_form(batch, form))

        check_output(outputs["output"], batch)

    def test_takes_views_with_any_strides(
        self, session: Session, check_output: CheckOutput, count: int
    ) -> None:
        """A caller's array may be a transposed or reversed view of another."""
        memory = batch_of(count).transpose(0, 2, 3, 1).copy()[:, ::-1]
        batch = memory.transpose(0, 3, 1, 2)
        outputs = session(input=batch)

        check_output(outputs["output"], batch)

    def test_takes_read_only_inputs_and_leaves_them_alone(
        self, session: Session, check_output: CheckOutput, count: int
    ) -> None:
        """Inputs are the caller's."""
        batch = batch_of(count)
        before = batch.copy()
        batch.flags.writeable = False
        outputs = session(input=batch)

        check_output(outputs["output"], before)
        np.testing.assert_array_equal(batch, before)

    def test_does_not_write_to_its_inputs(self, session: Session, count: int) -> None:
        """Nor where it could."""
        batch = batch_of(count)
        session(input=batch)

        np.testing.assert_array_equal(batch, batch_of(count))

    def test_does_not_reuse_what_it_returned(
        self, session: Session, operations: Operations, count: int
    ) -> None:
        """Outputs are the caller's to keep: a later call leaves them alone."""
        kept = session(input=batch_of(count))["output"]
        before = np.array(operations.host(kept))
        session(input=batch_of(count, seed=1))

        np.testing.assert_array_equal(operations.host(kept), before)

    def test_what_it_returned_can_be_written_to(
        self,
        session: Session,
        operations: Operations,
        check_output: CheckOutput,
        count: int,
    ) -> None:
        """Outputs are the caller's to change, which no later call sees."""
        batch = batch_of(count)
        output = session(input=batch)["output"]
        output[...] = 7

        assert (operations.host(output) == 7).all()
        check_output(session(input=batch)["output"], batch)

    @pytest.mark.parametrize(
        "shape", [(1, 4, SIZE, SIZE), (3, SIZE, SIZE), (1, 3 * SIZE * SIZE)], ids=str
    )
    def test_a_wrong_shape_is_an_error_of_ours(
        self,
        session: Session,
        check_output: CheckOutput,
        count: int,
        shape: tuple[int, ...],
    ) -> None:
        """A runtime's own exception says nothing to the user; the next call works."""
        with pytest.raises(InferenceModelsError):
            session(input=np.zeros(shape, np.float32))
        batch = batch_of(count)
        check_output(session(input=batch)["output"], batch)

    def test_eight_threads_get_what_one_gets(
        self, session: Session, operations: Operations
    ) -> None:
        """A session is shared by threads, and no call sees another's arrays."""
        batches = [batch_of(seed % 3 + 1, seed) for seed in range(8)]
        alone = [np.array(operations.host(session(input=b)["output"])) for b in batches]
        start = Barrier(8)

        def calls(number: int) -> list[np.ndarray]:
            start.wait(timeout=60)
            outputs = [session(input=batches[number])["output"] for _ in range(20)]
            return [np.array(operations.host(output)) for output in outputs]

        with eager_threads(), ThreadPoolExecutor(8) as pool:
            found = list(pool.map(calls, range(8)))
        for outputs, expected in zip(found, alone, strict=True):
            for output in outputs:
                np.testing.assert_array_equal(output, expected)

    def test_runs_what_its_operations_prepare_in_every_precision(
        self, toy: Bundle, device: str, operations: Operations
    ) -> None:
        """A batch goes from the device's operations into the session as it is."""
        made = self.made()
        images = read_images([picture(SIZE, SIZE, seed) for seed in range(2)])
        spec = ToyArchitecture(toy).preprocessing
        expected = ToyArchitecture.expected(prepare(images, spec)[0])
        for precision in made.precisions(toy.artifact, device):
            plan = Plan(device, precision, toy.artifact.batch)
            if made.refuse(toy.card, toy.artifact, plan) is not None:
                continue
            with self.opened(toy, plan) as sessions:
                dtype = sessions["main"].inputs["input"].dtype
                batch, _ = operations.prepare(images, attrs.evolve(spec, dtype=dtype))
                output = operations.host(sessions["main"](input=batch)["output"])
            limit = tolerance(precision)
            np.testing.assert_allclose(output, expected, atol=limit, err_msg=precision)

    def test_writes_nothing_beside_the_weights(self, toy: Bundle, device: str) -> None:
        """The folder may be shared, read-only, or made of links into a cache."""
        before = _contents(toy.folder)
        with self.opened(toy, plan_of(toy, device)) as sessions:
            sessions["main"](input=batch_of(1))

        assert _contents(toy.folder) == before

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_file_is_invalid_weights(
        self, toy: Bundle, device: str, damage: str, tmp_path_factory: Folders
    ) -> None:
        """By that error core knows to say so, and to try the next artifact."""
        bundle = _damaged(toy, damage, tmp_path_factory.mktemp("damaged"))
        architecture = ToyArchitecture(bundle)

        with pytest.raises(InvalidWeights):
            self.made().open(bundle, architecture, plan_of(toy, device))

    def test_inspects_its_own_files(self, toy: Bundle, device: str) -> None:
        """A bare file of weights is read, not run, to find whose it is."""
        if self.backend.inspect is Backend.inspect:
            pytest.skip("reads no bare files")
        facts = self.made().inspect(_entry(toy))

        assert isinstance(facts, Facts)
        assert facts.format == toy.artifact.format
        assert facts.tensors
        assert all(isinstance(spec, TensorSpec) for spec in facts.tensors.values())

    @pytest.mark.parametrize("content", FOREIGN)
    def test_inspects_no_foreign_files(
        self, device: str, content: str, tmp_path: Path
    ) -> None:
        """Every backend is shown the file, and all but one have never seen its like."""
        path = tmp_path / "weights.bin"
        path.write_bytes(FOREIGN[content])

        assert self.made().inspect(path) is None

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_inspects_damaged_files_without_failing(
        self, toy: Bundle, device: str, damage: str, tmp_path_factory: Folders
    ) -> None:
        """What is half there is not one of its files, or an error of ours."""
        bundle = _damaged(toy, damage, tmp_path_factory.mktemp("damaged"))
        with contextlib.suppress(InferenceModelsError):
            facts = self.made().inspect(_entry(bundle))

            assert facts is None or isinstance(facts, Facts)

    def test_closing_ends_its_own_sessions_alone(
        self, toy: Bundle, device: str, session: Session, check_output: CheckOutput
    ) -> None:
        """The same weights may be open twice; a closed model says that it is closed."""
        with self.opened(toy, plan_of(toy, device)) as others:
            others["main"](input=batch_of(1))
        batch = batch_of(3)

        with pytest.raises(ModelClosed):
            others["main"](input=batch)
        check_output(session(input=batch)["output"], batch)

    def test_closing_twice_is_closing_once(self, toy: Bundle, device: str) -> None:
        """A `with` block may end after somebody called `close`."""
        made, architecture = self.made(), ToyArchitecture(toy)
        sessions = made.open(toy, architecture, plan_of(toy, device))
        for session in [*sessions.values()] * 2:
            session.close()

    def test_derives_what_it_says(
        self,
        source: Bundle,
        device: str,
        operations: Operations,
        tmp_path_factory: Folders,
    ) -> None:
        """What is written is described, its files are there, and it gives the same."""
        written = self.backend.derives.get(source.artifact.format)
        if written is None:
            pytest.skip(
                f"derives nothing from {source.artifact.format}; a fixture "
                "`source` is the toy in a format that it derives from"
            )
        folder = tmp_path_factory.mktemp("derived")
        plan, shares = plan_of(source, device), []
        try:
            artifact = self.made().derive(
                source,
                ToyArchitecture(source),
                plan,
                folder,
                lambda _, share: shares.append(share),
            )
        except (MissingDependency, Unavailable) as error:
            pytest.skip(str(error))

        assert artifact.format == written
        assert artifact.graphs.keys() == source.artifact.graphs.keys()
        assert all((folder / file.name).is_file() for file in artifact.files)
        assert {*artifact.graphs.values()} <= {".", *(f.name for f in artifact.files)}
        assert all(0 <= share <= 1 for share in shares)
        if written in self.backend.formats:
            bundle = attrs.evolve(source, artifact=artifact, folder=folder)
            batch = batch_of(count_of(bundle))
            with self.opened(bundle, plan_of(bundle, device)) as sessions:
                output = operations.host(sessions["main"](input=batch)["output"])
            check_toy(output, batch, tolerance(artifact.precision))


def count_of(bundle: Bundle) -> int:
    """The images that its graph takes best, or three where it takes any number."""
    return bundle.artifact.batch[1] if bundle.artifact.batch else 3


def plan_of(bundle: Bundle, device: str) -> Plan:
    """The plan to run an artifact as it was written."""
    return Plan(device, bundle.artifact.precision, bundle.artifact.batch)


def check_toy(output: np.ndarray, batch: np.ndarray, limit: float) -> None:
    """The toy's output (N, 3) for a batch, float32 and nearly right."""
    expected = ToyArchitecture.expected(batch)

    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, rtol=0, atol=limit)


@contextlib.contextmanager
def eager_threads() -> Iterator[None]:
    """Let threads take turns as often as Python can, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _damaged(toy: Bundle, damage: str, folder: Path) -> Bundle:
    """A copy of the toy whose entry file is damaged."""
    bundle = attrs.evolve(toy, folder=folder / "toy")
    shutil.copytree(toy.folder, bundle.folder)
    path = _entry(bundle)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    return bundle


def _entry(bundle: Bundle) -> Path:
    """The entry file of the graph, or the largest file of a folder that is one."""
    path = bundle.path("main")
    if path.is_file():
        return path
    return max(filter(Path.is_file, path.rglob("*")), key=lambda p: p.stat().st_size)
