"""A graph as its architecture sees it: names, and batches of any size."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_models import (
    Architecture,
    InvalidInput,
    InvalidWeights,
    ModelClosed,
    Preprocessing,
    RunFailed,
    Session,
    TensorSpec,
)
from inference_models.batching import NamedSession, fitted, wrapped
from inference_models.images import to_host


class Doubling(Session):
    """Gives back its input twice as large, and what else it is told to."""

    def __init__(self, *more):
        spec = TensorSpec("float32", ("batch", 2))
        self.inputs = {"x": spec}
        self.outputs = dict.fromkeys(["y", *more], spec)
        self.sizes = []

    def __call__(self, **inputs):
        self.sizes.append(len(inputs["x"]))
        return {name: np.asarray(inputs["x"]) * 2 for name in self.outputs}


def rows(count):
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def named(session, rename=None, batch=None):
    return NamedSession(session, rename or {}, batch, to_host)


@given(
    least=st.integers(1, 6),
    more=st.integers(0, 6),
    count=st.integers(1, 30),
)
def test_any_number_of_images_runs_in_batches_that_the_graph_takes(least, more, count):
    session = Doubling()
    outputs = named(session, batch=(least, least, least + more))(x=rows(count))

    assert np.array_equal(outputs["y"], rows(count) * 2)
    assert all(least <= size <= least + more for size in session.sizes)


def test_a_batch_of_no_images_is_refused_where_the_graph_takes_some():
    with pytest.raises(InvalidInput, match="hold no images; the graph takes 2 to 4"):
        named(Doubling(), batch=(2, 4, 4))(x=rows(0))


class Selecting(Doubling):
    """Gives back three rows for each image, as a graph with its own NMS may."""

    def __call__(self, **inputs):
        outputs = super().__call__(**inputs)
        return {name: np.repeat(array, 3, axis=0) for name, array in outputs.items()}


def test_a_batch_whose_rows_are_not_its_images_is_not_split():
    session = named(Selecting(), batch=(1, 1, 1))

    assert len(session(x=rows(1))["y"]) == 3
    with pytest.raises(RunFailed, match=r"'y' is of shape \(3, 2\) for a batch of 1"):
        session(x=rows(2))


def test_a_graph_that_is_not_there_is_told_beside_those_that_are():
    sessions = wrapped({"main": Doubling()}, {}, None, to_host)
    with pytest.raises(InvalidWeights, match=r"no graph 'decoder'.*; it has main"):
        sessions["decoder"]


class Plain(Architecture):
    name = "plain"
    preprocessing = Preprocessing()

    def __init__(self, **changes):
        self.preprocessing = Preprocessing(**changes)

    def postprocess(self, *_):
        raise AssertionError


class OfItsOwn(Plain):
    def preprocess(self, *_):
        raise AssertionError


def taking(*shape, dtype="float32"):
    """A graph whose images are of this shape and type."""
    session = Doubling()
    session.inputs = {"input": TensorSpec(dtype, shape)}
    return {"main": session}


NHWC = {"layout": "NHWC", "size": (6, 8)}


@pytest.mark.parametrize(
    ("session", "changes"),
    [
        (taking("batch", 3, 6, 8), {"size": (6, 8)}),
        (taking("batch", "channels", "h", "w"), {"size": (6, 8)}),
        (taking("batch", 6, 8, 3), NHWC),
        (taking(), {}),
        (taking(1, 3, 8, 8), {}),
    ],
)
def test_a_graph_is_given_what_it_takes(session, changes):
    assert fitted(Plain(**changes), session) == Preprocessing(**changes)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "bfloat16"])
def test_a_batch_is_of_the_graphs_dtype(dtype):
    assert fitted(Plain(), taking("n", 3, "h", "w", dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("session", "changes", "words"),
    [
        (taking(1, 3, 8, 8, dtype="float64"), {}, "takes images of float64, and they"),
        (taking(1, 1, 8, 8), {}, r"shape \(1, 1, 8, 8\), and they .* three channels"),
        (taking(1, 8, 8, 3), {}, "if it is NHWC, say so as preprocessing.layout"),
        (taking(1, 3, 8, 8), {"layout": "NHWC"}, "if it is NCHW, say so"),
        (taking("batch", 192), {}, r"shape \(batch, 192\)"),
        (taking(1, 3, 8, 6), {"size": (6, 8)}, "of 8x6, and .* makes \\(6, 8\\)"),
        (taking(1, 8, 6, 3), NHWC, "of 8x6, and .* makes \\(6, 8\\)"),
    ],
)
def test_a_graph_that_takes_no_such_batch_is_refused(session, changes, words):
    with pytest.raises(InvalidWeights, match=words):
        fitted(Plain(**changes), session)


def test_an_architecture_may_prepare_other_batches_itself():
    session = taking("batch", 192, dtype="int64")

    assert fitted(OfItsOwn(), session).dtype == "float32"


@pytest.mark.parametrize("value", [None, [1.0, 2.0]])
@pytest.mark.parametrize("batch", [None, (1, 2, 4)])
def test_what_is_no_array_is_told_by_its_name(value, batch):
    with pytest.raises(InvalidInput, match=r"input 'x' is of type .*; give a NumPy"):
        named(Doubling(), batch=batch)(x=value)


def test_a_number_holds_no_images():
    with pytest.raises(InvalidInput, match="hold no images"):
        named(Doubling(), batch=(2, 4, 4))(x=np.float32(1))


def test_a_graph_of_one_batch_gets_it_though_its_card_says_nothing():
    session = Doubling()
    session.inputs = {"x": TensorSpec("float32", (4, 2))}
    outputs = named(session)(x=rows(6))

    assert np.array_equal(outputs["y"], rows(6) * 2)
    assert session.sizes == [4, 4]


def test_the_first_input_of_a_graph_may_be_a_single_number():
    session = Doubling()
    session.inputs = {"step": TensorSpec("int64", ()), **session.inputs}
    outputs = named(session)(step=np.array(3), x=rows(2))

    assert np.array_equal(outputs["y"], rows(2) * 2)


def test_inputs_of_several_first_sides_are_no_batch():
    session = Doubling()
    session.inputs = {
        "x": TensorSpec("float32", (4, 2)),
        "sides": TensorSpec("int64", (2,)),
    }
    named(session)(x=rows(6), sides=np.ones(2, np.int64))

    assert session.sizes == [6]


class Same(Doubling):
    """Gives back its input."""

    def __call__(self, **inputs):
        return {"y": inputs["x"]}


def test_a_batch_that_fits_is_handed_on_as_it_is():
    batch = rows(4)

    assert named(Same(), batch=(1, 4, 4))(x=batch)["y"] is batch


class Wrong(Doubling):
    """Gives back something else than its outputs."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def __call__(self, **inputs):
        return self.wrong


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(None, "a NoneType"), ([rows(1)], "a list"), ({"z": rows(1)}, "'z'")],
    ids=["None", "list", "name"],
)
def test_outputs_that_the_graph_does_not_have_are_told(wrong, words):
    with pytest.raises(RunFailed, match=f"Wrong returned {words}; its outputs are 'y'"):
        named(Wrong(wrong))(x=rows(1))


def test_a_graph_with_state_is_never_split():
    session = Doubling("state.cache")
    outputs = named(session, batch=(2, 2, 2))(x=rows(5))

    assert session.sizes == [5]
    assert outputs["state.cache"].shape == (5, 2)


def test_names_of_the_file_become_the_architectures():
    session = named(Doubling("z"), {"x": "image", "y": "boxes", "#1": "scores"})

    assert list(session.inputs) == ["image"]
    assert list(session.outputs) == ["boxes", "scores"]
    assert list(session(image=rows(1))) == ["boxes", "scores"]


def test_after_closing_a_call_says_so():
    session = named(Doubling())
    session.close()
    session.close()

    with pytest.raises(ModelClosed, match="load it again"):
        session(x=rows(1))


class Held(Doubling):
    """Runs until it is let go, and tells whether it was closed before that."""

    def __init__(self):
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.told = []

    def __call__(self, **inputs):
        self.entered.set()
        assert self.let_go.wait(10)
        self.told.append("ran")
        return super().__call__(**inputs)

    def close(self):
        self.told.append("closed")


def test_a_session_is_closed_once_running_calls_are_done():
    held = Held()
    session = named(held)
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(session, x=rows(1)) for _ in range(2)]
        assert held.entered.wait(10)
        session.close()
        with pytest.raises(ModelClosed):
            session(x=rows(1))
        assert held.told == []
        held.let_go.set()
        done = [future.exception() for future in running]

    assert held.told in (["ran", "ran", "closed"], ["ran", "closed"])
    assert done.count(None) == held.told.count("ran")
    assert all(isinstance(each, (ModelClosed, type(None))) for each in done)


def test_a_call_that_fails_does_not_keep_a_session_from_being_closed():
    held = Held()
    held.let_go.set()
    held.sizes = None
    session = named(held)
    with pytest.raises(RunFailed, match="Held failed: AttributeError"):
        session(x=rows(1))
    session.close()

    assert held.told == ["ran", "closed"]
