"""The public card."""

from efficientnet_lite_models import EfficientNetLite

(CARD,) = EfficientNetLite.cards()


def test_names_stand_where_the_published_weights_have_them():
    assert len(CARD.labels) == 1000
    assert CARD.labels[0] == "tench, Tinca tinca"
    assert CARD.labels[281] == "tabby, tabby cat"
    assert CARD.labels[967] == "espresso"
    assert CARD.labels[999] == "toilet tissue, toilet paper, bathroom tissue"
