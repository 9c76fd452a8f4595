"""What a session is given has the names, dtypes and shapes that its graph takes."""

from __future__ import annotations

import numpy as np
import pytest

from inference_models import InvalidInput, TensorSpec, check_inputs
from inference_models.inputs import dtype_name

SPECS = {
    "image": TensorSpec("float32", ("N", 3, 4)),
    "sizes": TensorSpec("int64", (2,)),
}


class Tensor:
    """An array of a library whose dtypes have no name but a text."""

    def __init__(self, text, *shape):
        self.dtype, self.shape = type("Dtype", (), {"__str__": lambda _: text})(), shape


def given(**changes):
    inputs = {"image": np.ones((5, 3, 4), np.float32), "sizes": np.ones(2, np.int64)}
    return inputs | changes


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_a_dimension_with_a_name_is_free(batch):
    check_inputs(SPECS, given(image=np.ones((batch, 3, 4), np.float32)))


def test_an_input_of_unknown_rank_takes_any_shape():
    check_inputs({"x": TensorSpec("uint8", ())}, {"x": np.ones((2, 3), np.uint8)})


def test_tensors_are_compared_by_what_they_are():
    check_inputs(SPECS, given(image=Tensor("torch.float32", 1, 3, 4)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "takes 'image': float32 (N, 3, 4), 'sizes': int64 (2); it was given noth"),
        (given(x=1), "it was given 'image', 'sizes', 'x'"),
        (
            given(image=np.ones((5, 3, 4))),
            "input 'image' is float64 (5, 3, 4); the graph takes float32 (N, 3, 4)",
        ),
        (given(image=np.ones((3, 4), "f4")), "is float32 (3, 4); the graph takes"),
        (given(sizes=np.ones(3, np.int64)), "input 'sizes' is int64 (3); the graph"),
        (given(sizes=[1, 2]), "input 'sizes' is of type list; give a NumPy array or"),
        (given(image=Tensor("torch.half", 1, 3, 4)), "'image' is half (1, 3, 4)"),
    ],
)
def test_a_wrong_input_is_named_with_what_is_wanted(inputs, message):
    with pytest.raises(InvalidInput) as caught:
        check_inputs(SPECS, inputs)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.ones(1, ">f4"), "float32"),
        (np.ones(1, bool), "bool"),
        (Tensor("torch.bfloat16"), "bfloat16"),
        (Tensor("bool"), "bool"),
    ],
)
def test_a_dtype_has_the_name_that_numpy_gives_it(array, expected):
    assert expected == dtype_name(array)
