"""Cards: what they accept, what they refuse, and their way through JSON."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_models import (
    Artifact,
    Bundle,
    File,
    InvalidCard,
    ModelCard,
    distinct_labels,
)

FULL = {
    "id": "acme-nano",
    "architecture": "acme",
    "task": "object-detection",
    "artifacts": [
        {
            "format": "onnx",
            "graphs": {"main": "model.onnx"},
            "files": [
                {
                    "name": "model.onnx",
                    "sources": ["https://example.com/model.onnx"],
                    "size": 12,
                    "sha256": "ab" * 32,
                    "md5": "cd" * 16,
                    "git_sha1": "ef" * 20,
                },
                {"name": "data/labels.txt"},
            ],
            "precision": "fp16",
            "batch": [1, 4, 8],
            "rename": {"#1": "scores"},
            "needs": {"opset": 17},
            "config": {"preprocessing": {"dtype": "uint8"}},
            "base": "acme-base",
        }
    ],
    "labels": ["cat", None, "dog"],
    "config": {"preprocessing": {"size": [64, 64]}},
    "license": "Apache-2.0",
    "aliases": ["acme-n"],
}

ENDLESS = "x" * 9999

words = st.text("abcdefgh-", min_size=1, max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner),
    max_leaves=6,
)
files = st.builds(
    File,
    name=words,
    sources=st.lists(words, max_size=2),
    size=st.none() | st.integers(0, 1 << 40),
    sha256=st.none() | st.text("0123456789abcdef", min_size=8, max_size=64),
    md5=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
)
artifacts = st.builds(
    Artifact,
    format=words,
    graphs=st.dictionaries(words, words, max_size=2),
    files=st.lists(files, max_size=3, unique_by=lambda file: file.name),
    precision=words,
    batch=st.none() | st.lists(st.integers(1, 64), min_size=3, max_size=3).map(sorted),
    rename=st.dictionaries(words, words, max_size=2),
    needs=st.dictionaries(words, plain, max_size=2),
    config=st.dictionaries(words, plain, max_size=2),
    base=st.none() | words,
)
cards = st.builds(
    ModelCard,
    id=words,
    architecture=words,
    task=words,
    artifacts=st.lists(artifacts, max_size=2),
    labels=st.lists(words, max_size=4, unique=True),
    config=st.dictionaries(words, plain, max_size=2),
    license=st.none() | words,
    aliases=st.lists(words, max_size=2),
)


def changed(**changes):
    return ModelCard.from_json(FULL | changes)


def with_artifact(**changes):
    return changed(artifacts=[FULL["artifacts"][0] | changes])


def with_file(**changes):
    return with_artifact(files=[FULL["artifacts"][0]["files"][0] | changes])


@given(cards)
def test_a_card_survives_json(card):
    text = json.dumps(card.to_json())

    assert ModelCard.from_json(json.loads(text)) == card


def test_every_field_survives_json():
    assert json.loads(json.dumps(ModelCard.from_json(FULL).to_json())) == FULL


def test_json_leaves_out_what_has_its_default():
    card = ModelCard("a", "b", "c", (Artifact("onnx", {"main": "m.onnx"}),))

    assert card.to_json() == {
        "id": "a",
        "architecture": "b",
        "task": "c",
        "artifacts": [{"format": "onnx", "graphs": {"main": "m.onnx"}}],
    }


def test_null_stands_for_what_is_optional():
    assert with_artifact(batch=None, base=None).artifacts[0].batch is None


@pytest.mark.parametrize(
    ("make", "key", "nearest"),
    [
        (changed, "lables", "labels"),
        (with_artifact, "precison", "precision"),
        (with_file, "sha265", "sha256"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(make, key, nearest):
    with pytest.raises(InvalidCard, match=f"no field '{key}'.*did you mean '{nearest}"):
        make(**{key: "x"})


def test_a_key_that_is_no_text_is_refused():
    with pytest.raises(InvalidCard, match="ModelCard has no field 5"):
        ModelCard.from_json({**FULL, 5: 1})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": 3}, "ModelCard.id must be a text"),
        ({"id": ""}, "ModelCard.id must be a text"),
        ({"id": None}, "ModelCard.id must be a text"),
        ({"labels": "cat"}, "ModelCard.labels must be a list"),
        ({"labels": [1]}, "label 1 is neither a text nor null"),
        ({"labels": [None, None]}, "labels are all null, so nothing would ever be"),
        ({"aliases": [1]}, "aliases holds 1"),
        ({"config": []}, "ModelCard.config must be a mapping"),
        ({"artifacts": {}}, "ModelCard.artifacts must be a list"),
        ({"artifacts": ["m.onnx"]}, "Artifact must be a mapping, not str"),
        ({"license": 2}, "ModelCard.license must be a text"),
    ],
)
def test_a_wrong_kind_in_a_card_is_named(changes, words):
    with pytest.raises(InvalidCard, match=words):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graphs": ["m.onnx"]}, "Artifact.graphs must be a mapping"),
        ({"graphs": {"main": 3}}, "graphs must map texts to texts"),
        ({"graphs": {"main": "../m.onnx"}}, "'../m.onnx' is not allowed"),
        ({"rename": {"#1": 1}}, "rename must map texts to texts"),
        ({"files": ["m.onnx"]}, "File must be a mapping, not str"),
        ({"batch": 8}, "Artifact.batch must be a list"),
        ({"format": None}, "Artifact.format must be a text"),
    ],
)
def test_a_wrong_kind_in_an_artifact_is_named(changes, words):
    with pytest.raises(InvalidCard, match=words):
        with_artifact(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 3}, "File.name must be a text"),
        ({"sources": "https://x"}, "File.sources must be a list"),
        ({"sources": [3]}, "sources holds 3"),
        ({"size": "12"}, "File.size must be a number"),
        ({"size": -1}, "File.size must be a number"),
        ({"size": True}, "File.size must be a number"),
    ],
)
def test_a_wrong_kind_in_a_file_is_named(changes, words):
    with pytest.raises(InvalidCard, match=words):
        with_file(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": [ENDLESS]},
        {"labels": ENDLESS},
        {"labels": [[ENDLESS]]},
        {"labels": [ENDLESS, ENDLESS]},
        {"aliases": [[ENDLESS]]},
        {ENDLESS: 1},
        {"artifacts": [{**FULL["artifacts"][0], "graphs": {ENDLESS: [ENDLESS]}}]},
        {"artifacts": [{**FULL["artifacts"][0], "batch": [ENDLESS]}]},
        {"artifacts": [{**FULL["artifacts"][0], "files": [{"name": ENDLESS}]}]},
        {
            "artifacts": [
                {
                    **FULL["artifacts"][0],
                    "files": [{"name": "a", "sources": [[ENDLESS]]}],
                }
            ]
        },
        {
            "artifacts": [
                {**FULL["artifacts"][0], "files": [{"name": "a", "md5": ENDLESS}]}
            ]
        },
    ],
)
def test_what_is_wrong_does_not_fill_the_message(changes):
    with pytest.raises(InvalidCard, match=r"\A.{20,700}\Z"):
        ModelCard.from_json(FULL | changes)


@pytest.mark.parametrize("data", [None, [], "card", 3])
def test_what_is_no_mapping_is_no_card(data):
    with pytest.raises(InvalidCard, match="must be a mapping"):
        ModelCard.from_json(data)


def test_everything_that_is_missing_is_named():
    with pytest.raises(InvalidCard, match="lacks 'architecture', 'artifacts', 'task'"):
        ModelCard.from_json({"id": "acme-nano"})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../weights",
        "a/../../b",
        "a\\b",
        "C:evil",
        "a\x00b",
        "a\nb",
        "NUL",
        "folder/com1.txt",
        "COM\N{SUPERSCRIPT ONE}",
        "conin$",
        "nul .txt",
        "weights.onnx.",
        "folder /weights.onnx",
        "x" * 201,
        "a/" * 500 + "x",
    ],
)
def test_a_file_name_that_leaves_its_folder_is_refused(name):
    with pytest.raises(InvalidCard, match="is not allowed"):
        File(name)


@pytest.mark.parametrize("name", ["a.onnx", "a/b/c.bin", ".hidden", "ü …", "a..b"])
def test_a_file_name_within_its_folder_is_accepted(name):
    assert File(name).name == name


@pytest.mark.parametrize("names", [["a", "a"], ["a/b", "./a/b"], ["A.bin", "a.BIN"]])
def test_a_file_is_listed_once(names):
    with pytest.raises(InvalidCard, match="more than once"):
        Artifact("onnx", {"main": "."}, [File(name) for name in names])


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a.x", "a+", "A/B"]])
def test_a_file_is_no_folder(names):
    with pytest.raises(InvalidCard, match="or as a folder"):
        Artifact("onnx", {"main": "."}, [File(name) for name in names])


def test_names_in_many_folders_fill_no_memory():
    files = [File(f"{number}/" + "a/" * 490) for number in range(100)]
    tracemalloc.start()
    try:
        Artifact("onnx", {"main": "."}, files)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 5_000_000


@pytest.mark.parametrize("digest", ["ab" * 4, "ab" * 10, "ab" * 32])
def test_a_sha256_or_its_prefix_is_accepted(digest):
    assert File("a", sha256=digest).sha256 == digest


@pytest.mark.parametrize(
    "digest", ["", "abcdef1", "ab" * 33, "AB" * 32, "xy" * 32, " " + "a" * 63]
)
def test_another_text_than_a_sha256_is_refused(digest):
    with pytest.raises(InvalidCard, match=r"sha256 .* is not 8 to 64 lower-case"):
        File("a", sha256=digest)


@pytest.mark.parametrize("digest", ["ab" * 4, "ab" * 17, "AB" * 16])
def test_another_text_than_a_whole_md5_is_refused(digest):
    with pytest.raises(InvalidCard, match=r"md5 .* is not 32 lower-case"):
        File("a", md5=digest)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"git_sha1": "ab" * 19, "size": 1}, "git_sha1 .* is not 40 lower-case"),
        ({"git_sha1": "AB" * 20, "size": 1}, "git_sha1 .* is not 40 lower-case"),
        ({"git_sha1": "ab" * 20}, "'a' has a git_sha1 and no size"),
    ],
)
def test_another_text_than_gits_id_of_a_file_of_known_size_is_refused(facts, words):
    with pytest.raises(InvalidCard, match=words):
        File("a", **facts)


def test_repeated_labels_are_refused():
    with pytest.raises(InvalidCard, match="labels repeat 'crane'"):
        changed(labels=["crane", "cat", "crane"])


def test_columns_that_are_never_returned_may_repeat():
    card = changed(labels=[None, "cat", None])

    assert card.class_names == ["", "cat", ""]


@pytest.mark.parametrize("batch", [[1, 1, 1], [8, 8, 8], [1, 4, 64]])
def test_a_batch_is_least_best_and_most(batch):
    assert with_artifact(batch=batch).artifacts[0].batch == tuple(batch)


@pytest.mark.parametrize(
    "batch", [[], [1], [1, 2], [0, 1, 2], [4, 2, 8], [1, 8, 4], [1, 2, 3, 4]]
)
def test_another_batch_is_refused(batch):
    with pytest.raises(InvalidCard, match="is not \\(min, best, max\\)"):
        with_artifact(batch=batch)


@pytest.mark.parametrize("batch", [[1, 2.5, 4], ["1", "2", "3"], [None] * 3])
def test_a_batch_is_of_whole_numbers(batch):
    with pytest.raises(InvalidCard, match="is not \\(min, best, max\\)"):
        with_artifact(batch=batch)


def test_a_bundle_lays_the_artifact_over_the_card(tmp_path):
    card = changed(config={"preprocessing": {"size": [64, 64]}, "strides": [8, 16]})
    bundle = Bundle(card, card.artifacts[0], tmp_path)

    assert bundle.config == {"preprocessing": {"dtype": "uint8"}, "strides": [8, 16]}


def test_a_file_beside_weights_is_the_adapters_or_else_its_bases(tmp_path):
    card, own = changed(), tmp_path / "own"
    own.mkdir()
    (own / "vocab.json").touch()
    base = Bundle(card, card.artifacts[0], tmp_path / "base")
    adapter = Bundle(card, card.artifacts[0], own, base)

    assert adapter.file("vocab.json") == own / "vocab.json"
    assert adapter.file("merges.txt") == tmp_path / "base" / "merges.txt"


def test_a_bundle_knows_the_file_of_a_graph(tmp_path):
    card = changed()
    bundle = Bundle(card, card.artifacts[0], tmp_path)

    assert bundle.path() == tmp_path / "model.onnx"
    with pytest.raises(InvalidCard, match="no graph 'decoder'; it has main"):
        bundle.path("decoder")


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["a", "b"], ("a", "b")),
        (["crane", "crane"], ("crane", "crane (1)")),
        (["a", "a (1)", "a"], ("a", "a (1)", "a (2)")),
        (["a", "a", "a (1)"], ("a", "a (1) (1)", "a (1)")),
        (["", None, "", None], (None, None, None, None)),
    ],
)
def test_names_that_repeat_get_their_column(names, labels):
    assert distinct_labels(names) == labels
