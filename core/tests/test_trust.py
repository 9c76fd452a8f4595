"""What may be loaded from where: every cell of the table, and licences."""

from __future__ import annotations

import pytest

from inference_models import (
    Access,
    Artifact,
    File,
    InvalidOption,
    LicenseNotAllowed,
    ModelCard,
)
from inference_models.negotiation import find
from inference_models.registry import build
from inference_models.trust import (
    ORIGINS,
    TABLE,
    Consent,
    check_license,
    kind_of,
    verdict,
    vetted,
)

from .fakes import plugin, provider

NONE, NOBODY = Consent(), Access()
FILES = {
    "tensors": ("torch", "weights.safetensors"),
    "onnx": ("onnx", "weights.onnx"),
    "onnx-external": ("onnx", "weights.onnx", "weights.onnx.data"),
    "pickle": ("torch", "weights.pth"),
    "torch-script": ("torch-script", "weights.pt2", "class_names.txt"),
    "engine": ("trt", "engine.plan"),
    "code": ("torch", "weights.safetensors", "modeling.py"),
}
EXPECTED = {
    "tensors": "allow allow allow allow allow",
    "onnx": "allow allow allow allow allow",
    "onnx-external": "allow allow allow allow allow",
    "pickle": "allow allow allow refuse allow",
    "torch-script": "ask ask ask refuse ask",
    "engine": "ask ask ask refuse ask",
    "code": "refuse refuse refuse refuse refuse",
}
CELLS = [
    (kind, origin, word)
    for kind, row in EXPECTED.items()
    for origin, word in zip(ORIGINS, row.split(), strict=True)
]


def card(form, entry, *files, license_id=None):
    listed = [File(name) for name in (entry, *files)]
    artifact = Artifact(form, {"main": entry}, listed)
    return ModelCard("net", "net", "classification", (artifact,), license=license_id)


def reason(known, origin, consent=NONE):
    (artifact,) = vetted(known, origin, consent).artifacts
    return artifact.needs.get("unsupported")


def test_the_table_has_every_kind_and_origin():
    assert len(CELLS) == 35
    assert list(TABLE) == list(EXPECTED)
    assert {len(row) for row in TABLE.values()} == {len(ORIGINS)}


@pytest.mark.parametrize(("kind", "origin", "word"), CELLS)
def test_an_artifact_is_vetted_as_the_table_says(kind, origin, word):
    known = card(*FILES[kind])
    asked, consented = (reason(known, origin, Consent(None, c)) for c in (False, True))

    assert verdict(kind, origin) == word
    assert (asked is None) == (word == "allow")
    assert (consented is None) == (word != "refuse")


@pytest.mark.parametrize(
    ("kind", "origin", "words"),
    [
        (
            "engine",
            "card",
            "'engine.plan' is an engine, which is native code; allow_un",
        ),
        ("torch-script", "local", "'weights.pt2' is a program.*allow_untrusted"),
        (
            "pickle",
            "unpinned",
            "'weights.pth' is a pickle.*say which you trust: sha256=",
        ),
        ("code", "local", "'modeling.py' is code, and no code"),
    ],
)
def test_the_reason_says_what_to_do(kind, origin, words):
    import re

    assert re.search(words, reason(card(*FILES[kind]), origin))


@pytest.mark.parametrize(
    ("name", "form", "is_entry", "kind"),
    [
        ("a.PTH", "torch", True, "pickle"),
        ("pytorch_model.bin", "hf", False, "pickle"),
        ("model.safetensors", "hf", False, "tensors"),
        ("config.json", "hf", False, "tensors"),
        ("weights.bin", "onnx", False, "onnx-external"),
        ("weights_data", "onnx", False, "onnx-external"),
        ("labels.txt", "onnx", False, "tensors"),
        ("helper.so", "onnx", False, "code"),
        ("model.npz", "acme", True, "tensors"),
        ("engine", "trt", True, "engine"),
        ("inference_config.json", "trt", False, "tensors"),
    ],
)
def test_a_file_is_of_the_kind_that_its_name_and_format_say(name, form, is_entry, kind):
    assert kind_of(name, form, is_entry) == kind


def test_a_reason_that_an_artifact_has_stands():
    artifact = Artifact("trt", {"main": "e.plan"}, needs={"unsupported": "too old"})
    known = ModelCard("net", "net", "classification", (artifact,))

    assert reason(known, "card") == "too old"


# Licences


@pytest.mark.parametrize(
    ("has", "allowed"),
    [
        ("Apache-2.0", None),
        (None, None),
        ("Apache-2.0", ["MIT", "Apache-2.0"]),
        ("apache-2.0", ["Apache-2.0"]),
        ("MIT", "MIT"),
    ],
)
def test_a_licence_that_is_allowed_passes(has, allowed):
    assert check_license("net", has, Consent.read(allowed, False)) is None


@pytest.mark.parametrize(
    ("has", "allowed", "words"),
    [
        ("AGPL-3.0", ["MIT"], "'net' has the licence 'AGPL-3.0', and .* has 'MIT'"),
        (None, ["MIT"], "'net' says no licence"),
        ("MIT", [], "allow_licenses has none"),
        ("MIT-0", ["MIT"], "'MIT-0'"),
    ],
)
def test_another_licence_is_refused(has, allowed, words):
    with pytest.raises(LicenseNotAllowed, match=words):
        check_license("net", has, Consent.read(allowed, False))


@pytest.mark.parametrize("given", [["MIT", 1], [None]])
def test_what_is_no_list_of_licences_is_refused(given):
    with pytest.raises(InvalidOption, match="is no list of identifiers"):
        Consent.read(given, False)


# What find makes of it


def found(known, origin="publisher", access=NOBODY):
    methods = {
        "find": lambda self, model_id, access: known,
        "origin": lambda self, model_id, access: origin,
    }
    registry = build([plugin("acme", provider("hub", **methods))])
    return find.find("net", registry, access, None).card


def test_a_providers_origin_decides():
    known = card(*FILES["pickle"])

    assert reason(found(known), "local") is None
    assert "is a pickle" in reason(found(known, "unpinned"), "local")


def test_a_licence_is_checked_before_anything_is_fetched():
    known = card(*FILES["tensors"], license_id="AGPL-3.0")
    with pytest.raises(LicenseNotAllowed):
        found(known, access=Access(consent=Consent(("MIT",))))

    assert found(known, access=Access(consent=Consent(("AGPL-3.0",)))) == known
