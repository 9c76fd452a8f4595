"""Progress on a terminal, and in the log where there is none."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from inference_models.progress import shown

CLEARED = "\r\x1b[K"


class Stream(io.StringIO):
    """A stream that says whether it is a terminal, and what it showed at each flush."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal
        self.seen: list[str] = []

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.seen.append(self.getvalue())


def closed(stream: io.StringIO) -> io.StringIO:
    stream.close()
    return stream


ELSEWHERE = [Stream(terminal=False), None, closed(io.StringIO())]
"""A file in a terminal's place, nothing, as where there is no console, and a stream
that is closed, as daemons close it."""


@pytest.fixture
def derive(monkeypatch):
    """Reports twice to a stream, or until an error."""

    def run(stream, error=None):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", stream)
            with shown("deriving tiny") as report:
                report("exporting", 0.5)
                if error is not None:
                    raise error
                report("written", 1.0)

    return run


def logged(caplog):
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize("stream", ELSEWHERE, ids=["file", "none", "closed"])
def test_without_a_terminal_it_is_logged_at_info(derive, caplog, stream):
    caplog.set_level(logging.INFO, "inference_models")
    derive(stream)

    assert logged(caplog) == [
        (logging.INFO, "deriving tiny: exporting (50 %)"),
        (logging.INFO, "deriving tiny: written (100 %)"),
    ]


@pytest.mark.parametrize("stream", ELSEWHERE, ids=["file", "none", "closed"])
def test_without_a_terminal_an_error_passes_through(derive, stream):
    with pytest.raises(ZeroDivisionError):
        derive(stream, ZeroDivisionError())


def test_a_stream_that_is_no_terminal_stays_clean(derive):
    stream = Stream(terminal=False)
    derive(stream)

    assert stream.getvalue() == ""


def test_a_terminal_shows_what_is_done_at_once(derive):
    terminal = Stream(terminal=True)
    derive(terminal)

    assert terminal.seen[0] == f"{CLEARED}deriving tiny: exporting (50%)"


def test_a_terminal_shows_one_line_that_is_cleared(derive):
    terminal = Stream(terminal=True)
    derive(terminal)

    assert terminal.seen[-1].split(CLEARED) == [
        "",
        "deriving tiny: exporting (50%)",
        "deriving tiny: written (100%)",
        "",
    ]


def test_a_terminals_line_is_cleared_after_an_error_too(derive):
    terminal = Stream(terminal=True)
    with pytest.raises(ZeroDivisionError):
        derive(terminal, ZeroDivisionError())

    assert terminal.seen[-1].endswith(f"(50%){CLEARED}")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError()])
def test_a_terminal_that_goes_away_does_no_harm(derive, error):
    class Gone(Stream):
        def write(self, _: str) -> int:
            raise error

    derive(Gone(terminal=True))


def test_what_a_terminal_shows_is_not_logged(derive, caplog):
    caplog.set_level(logging.INFO, "inference_models")
    derive(Stream(terminal=True))

    assert logged(caplog) == []
