"""All tests of a backend."""

from __future__ import annotations

from inference_models.testing.operations import OperationsTests
from inference_models.testing.sessions import SessionTests


class BackendTests(SessionTests, OperationsTests):
    """All that a backend has to pass; set `backend` and write the fixture `toy`.

    One that derives from another format also writes the fixture `source`, the toy in
    that format. `settings` are arguments of the constructor to test with, and `runtime`
    names the modules that `open` alone may import, such as ("onnxruntime",).

    Tests run on the first device of each kind that `devices()` gives, and are skipped
    with its reason where that raises `Unavailable`.
    """
