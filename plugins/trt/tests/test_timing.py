"""What was measured is kept in a file, and a damaged one is as good as none.

TensorRT for RTX measures nothing, and still takes such a file.
"""

from __future__ import annotations

import logging

import pytest

from inference_models_trt.timing import load_timings, save_timings

pytestmark = [
    pytest.mark.usefixtures("rtx"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def config():
    from inference_models_trt.callbacks import Logger
    from inference_models_trt.runtime import trt

    logger = Logger()
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    yield config
    del config, builder, logger


def test_without_a_file_nothing_is_kept(config, tmp_path):
    assert load_timings(config, None) is None
    save_timings(None, tmp_path / "timings")

    assert list(tmp_path.iterdir()) == []


def test_what_a_build_measures_is_there_for_the_next(config, tmp_path):
    path = tmp_path / "new" / "timings"
    save_timings(load_timings(config, path), path)
    content = path.read_bytes()
    again = load_timings(config, path)

    assert content
    assert bytes(again.serialize()) == content
    assert [file.name for file in path.parent.iterdir()] == ["timings"]


@pytest.mark.parametrize("content", [b"", b"damaged", bytes(1000)], ids=len)
def test_a_damaged_file_is_as_good_as_none(config, tmp_path, content):
    path = tmp_path / "timings"
    path.write_bytes(content)

    assert load_timings(config, path) is not None


def test_timings_that_cannot_be_kept_do_not_end_a_build(config, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "inference_models")
    path = tmp_path / "file" / "timings"
    path.parent.write_bytes(b"in the way")
    save_timings(load_timings(config, path), path)

    assert "the timings cannot be kept" in caplog.text
