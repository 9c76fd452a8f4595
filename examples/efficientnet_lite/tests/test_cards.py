"""The architecture and its public card."""

import numpy as np
import pytest

from efficientnet_lite_models import EfficientNetLite
from inference_models.testing import ArchitectureTests

(CARD,) = EfficientNetLite.cards()


class TestEfficientNetLite(ArchitectureTests):
    architecture = EfficientNetLite

    @pytest.fixture
    def outputs(self) -> dict[str, np.ndarray]:
        logits = np.random.default_rng(0).normal(0, 3, (2, 1000))
        return {"output": logits.astype(np.float32)}


def test_names_stand_where_the_published_weights_have_them():
    assert len(CARD.labels) == 1000
    assert CARD.labels[0] == "tench, Tinca tinca"
    assert CARD.labels[281] == "tabby, tabby cat"
    assert CARD.labels[967] == "espresso"
    assert CARD.labels[999] == "toilet tissue, toilet paper, bathroom tissue"
