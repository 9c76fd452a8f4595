"""Tests that every plugin has to pass: subclass them, and say which class is meant.

A backend's test file writes the toy network in the backend's own format:

    import numpy as np
    import pytest
    from acme_npz import NpzBackend
    from inference_models import Artifact, Bundle
    from inference_models.testing import BackendTests, ToyArchitecture, toy_bundle


    class TestNpz(BackendTests):
        backend = NpzBackend
        runtime = ("acme_runtime",)  # what listing devices must not import

        @pytest.fixture
        def toy(self, tmp_path) -> Bundle:
            np.savez(tmp_path / "toy.npz", **ToyArchitecture.tensors())
            return toy_bundle(tmp_path, Artifact("npz", {"main": "toy.npz"}))

A model pack's test file makes up outputs of its network for two images:

    import numpy as np
    import pytest
    from acme_tiny import Tiny
    from inference_models.testing import ArchitectureTests


    class TestTiny(ArchitectureTests):
        architecture = Tiny

        @pytest.fixture
        def outputs(self) -> dict[str, np.ndarray]:
            return {"scores": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)}

A weights provider's test file runs a server on this machine, or makes a folder, that
the provider knows a model in:

    import pytest
    from acme_shelf import Shelf
    from inference_models.testing import WeightsProviderTests


    class TestShelf(WeightsProviderTests):
        provider = Shelf

        @pytest.fixture
        def model_id(self, server) -> str:
            return "acme/colors"

Within `with plugged(Shelf, NpzBackend, ToyArchitecture):` these are the plugins that a
whole `AutoModel.from_pretrained("shelf://acme/colors")` finds beside core's own.

`pytest` then runs all standard tests, those of a backend on one device of each kind
that is there, and skips them with the reason where it is `Unavailable`. The classes say
what else can be set: constructor arguments (`settings`), the card and bundle that the
outputs belong to, facts of a bare file that a pack claims. A test that a plugin cannot
pass is overridden with `@pytest.mark.xfail(reason="…")`, so that the gap is known, and
not otherwise. Needs the extra `testing`:
`pip install "inference-models-core[testing]"`.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    f"{__name__}.architectures",
    f"{__name__}.negotiation",
    f"{__name__}.operations",
    f"{__name__}.promises",
    f"{__name__}.providers",
    f"{__name__}.sessions",
    f"{__name__}.standard",
)

from inference_models.testing.architectures import (  # noqa: E402 - rewritten above
    ArchitectureTests,
)
from inference_models.testing.backends import BackendTests  # noqa: E402
from inference_models.testing.plugged import plugged  # noqa: E402
from inference_models.testing.providers import (  # noqa: E402
    WeightsProviderTests,
)
from inference_models.testing.toy import (  # noqa: E402
    ToyArchitecture,
    toy_bundle,
    toy_card,
)

__all__ = [
    "ArchitectureTests",
    "BackendTests",
    "ToyArchitecture",
    "WeightsProviderTests",
    "plugged",
    "toy_bundle",
    "toy_card",
]
