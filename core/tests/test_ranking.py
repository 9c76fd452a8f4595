"""The best of many scores."""

from __future__ import annotations

import numpy as np
import pytest

from inference_models import highest


@pytest.mark.parametrize("count", [1, 7, 300, 999, 2000])
@pytest.mark.parametrize("values", [1, 2, 50, 10**6], ids=lambda n: f"of {n}")
@pytest.mark.parametrize("size", [5, 999, 27_300])
def test_the_highest_are_those_that_a_stable_sort_has_first(size, values, count):
    scores = np.random.default_rng(0).integers(0, values, size).astype(np.float32)
    expected = np.argsort(-scores, kind="stable")[:count]

    assert highest(scores, count).tolist() == expected.tolist()


@pytest.mark.parametrize(("size", "count"), [(0, 3), (3, 0), (0, 0), (3, -1)])
def test_of_none_there_are_none(size, count):
    assert highest(np.zeros(size), count).shape == (0,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8, np.bool_])
def test_whole_numbers_of_any_kind_are_ranked(dtype):
    assert highest(np.array([0, 3, 1], dtype), 1).tolist() == [1]


def test_what_is_endless_is_in_its_place():
    assert highest(np.array([0, np.inf, -np.inf, 1]), 4).tolist() == [1, 3, 0, 2]
