"""Cards that a pack ships: read from its folder, with weights beside them."""

from __future__ import annotations

import importlib
import json
import logging
import shutil

import pytest

SOURCE = """
from acme_vision import Colors

from inference_models import Architecture


class Shipped(Architecture):
    name, postprocess = "acme-shipped", Colors.postprocess
"""


@pytest.fixture
def pack(acme, tmp_path, monkeypatch):
    """Writes a package with these cards by name, and gives its architecture."""
    folder = tmp_path / "site" / "acme_shipped"
    (folder / "cards").mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE, "utf-8")
    monkeypatch.syspath_prepend(folder.parent)

    def write(**cards):
        for name, text in cards.items():
            (folder / "cards" / f"{name}.json").write_text(text, "utf-8")
        shutil.copy(acme.WEIGHTS, folder / "cards" / "weights.json.bin")
        return importlib.import_module("acme_shipped").Shipped

    yield write
    importlib.sys.modules.pop("acme_shipped", None)


def text(acme, name, **artifact):
    """A card whose file has no source."""
    changes = {"id": name, "aliases": [], "architecture": "acme-shipped"}
    made = {"format": "acme", "graphs": {"main": "weights.json.bin"}} | artifact
    return json.dumps(acme.card().to_json() | changes | {"artifacts": [made]})


def test_a_file_without_a_source_lies_beside_its_card(acme, pack):
    (card,) = pack(one=text(acme, "one")).cards()
    (file,) = card.artifacts[0].files

    assert file.sources[0].startswith("file://")
    assert file.sources[0].endswith("/acme_shipped/cards/weights.json.bin")


def test_cards_are_read_within_a_zip_archive(acme, pack, tmp_path, monkeypatch):
    folder = tmp_path / "site" / "acme_shipped"
    pack(one=text(acme, "one"))
    importlib.sys.modules.pop("acme_shipped")
    archive = shutil.make_archive(folder, "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    monkeypatch.syspath_prepend(archive)
    importlib.invalidate_caches()

    shipped = importlib.import_module("acme_shipped")

    assert ".zip" in shipped.__file__
    assert [card.id for card in shipped.Shipped.cards()] == ["one"]


def test_a_wrong_card_hides_no_other_and_is_named(acme, pack, caplog):
    caplog.set_level(logging.WARNING)
    cards = pack(bad='{"id": "bad"}', good=text(acme, "good")).cards()

    assert [card.id for card in cards] == ["good"]
    (record,) = caplog.records
    assert "a card is left out: " in record.getMessage()
    assert "bad.json" in record.getMessage()


def test_cards_of_others_in_the_folder_are_theirs(acme, pack):
    other = text(acme, "other").replace("acme-shipped", "acme-other")

    assert [card.id for card in pack(one=text(acme, "one"), b=other).cards()] == ["one"]
