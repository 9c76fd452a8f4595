"""Logits to probabilities."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from inference_models import sigmoid, softmax

LOGITS = np.array([[-3.0, 0.5, 2.0], [1e4, -1e4, 0.0]], np.float32)


def test_a_sigmoid_is_one_by_one_plus_the_exponential_of_the_negative():
    assert sigmoid(LOGITS[0]) == pytest.approx(1 / (1 + np.exp(-LOGITS[0])), abs=1e-6)


def test_softmax_is_the_share_of_exponentials_of_the_last_axis():
    powers = np.exp(LOGITS[0])
    assert softmax(LOGITS)[0] == pytest.approx(powers / powers.sum(), abs=1e-6)


@pytest.mark.parametrize("function", [sigmoid, softmax])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_great_logits_do_not_overflow(function, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = function(LOGITS.astype(dtype))

    assert found.dtype == dtype
    assert found[1, 0] == 1
    assert found[1, 1] == 0


@pytest.mark.parametrize("row", [[np.inf, 0.0], [np.nan, 0.0], [-np.inf, -np.inf]])
def test_softmax_of_what_has_no_shares_is_nan_and_warns_of_nothing(row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shares = softmax(np.array([row, [0.0, 0.0]]))

    assert np.isnan(shares[0]).any()
    assert shares[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("function", [sigmoid, softmax])
def test_a_column_that_is_hidden_has_no_share(function):
    assert function(np.array([0.0, -np.inf, 1.0]))[1] == 0
