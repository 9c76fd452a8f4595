"""What a repository of the Hub is taken for: a card, a folder, or one file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inference_models import (
    AutoModel,
    DownloadFailed,
    HashMismatch,
    InvalidCard,
    InvalidOption,
    InvalidWeights,
    LicenseNotAllowed,
    ModelNotFound,
    NoBackend,
)

from .hub_server import git_sha1, sha256
from .tiny_pack import weights

BLUE = np.full((9, 12, 3), (255, 0, 0), np.uint8)
WEIGHTS = weights(9, 9, 9)
SMALL = json.dumps({"model_type": "tiny"}).encode()
FOLDER = {
    "config.json": SMALL,
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
}
ARTIFACT = {"format": "tiny", "graphs": {"main": "w.onnx"}}


@pytest.fixture(autouse=True)
def _plugin(tiny):
    """The plugin that reads these files."""


def load(model_id="hf://org/name", **parameters):
    return AutoModel.from_pretrained(model_id, **parameters)


def sees_blue(model):
    return bool(model(BLUE).confidence[0]["blue"] > 0.9)


def card(*artifacts, **changes):
    facts = {
        "id": "mine",
        "architecture": "tiny",
        "task": "classification",
        "labels": ["red", "green", "blue"],
        "config": {"preprocessing": {"size": [16, 16]}},
        "artifacts": list(artifacts) or [ARTIFACT],
    }
    return json.dumps(facts | changes).encode()


# One file


@pytest.mark.parametrize(
    "model_id",
    ["org/name/onnx/w.onnx", "hf://org/name/onnx/w.onnx", "org/name@main/onnx/w.onnx"],
)
def test_a_file_is_named_by_its_path(hub, model_id):
    hub.adds("org/name", {"onnx/w.onnx": WEIGHTS, "other.onnx": b"other"})
    model = load(model_id)

    assert sees_blue(model)
    assert model.card.id == model_id.removeprefix("hf://")
    assert hub.fetched == ["onnx/w.onnx"]


@pytest.mark.parametrize("path", ["a b/w#1.onnx", "größe/%41?.onnx", "a+b/w&c=d.onnx"])
def test_a_path_may_have_any_character(hub, path):
    hub.adds("org/name", {path: WEIGHTS})

    assert sees_blue(load(f"hf://org/name/{path}"))


def test_a_file_that_is_not_there_has_its_neighbours_named(hub):
    hub.adds("org/name", {"onnx/model.onnx": WEIGHTS})
    with pytest.raises(ModelNotFound, match=r"did you mean 'onnx/model\.onnx'"):
        load("hf://org/name/onnx/modle.onnx")

    assert hub.fetched == []


def test_of_very_many_files_none_is_compared(hub):
    near = "a" * 60
    hub.adds("org/name", {f"{near}{n:04}.onnx": WEIGHTS for n in range(2001)})
    with pytest.raises(ModelNotFound, match=r"has no file '\S+' at [0-9a-f]{40}$"):
        load(f"hf://org/name/{near}.onnx")


def test_the_licence_is_that_of_the_repository(hub):
    hub.adds("org/name", {"w.onnx": WEIGHTS}, cardData={"license": "mit"})

    assert load("org/name/w.onnx").card.license == "mit"


@pytest.mark.parametrize("model_id", ["org/name", "org/name/w.onnx"])
def test_a_licence_that_is_not_allowed_keeps_weights_from_being_fetched(hub, model_id):
    hub.adds("org/name", {"w.onnx": WEIGHTS}, cardData={"license": "agpl-3.0"})
    with pytest.raises(LicenseNotAllowed, match=r"'agpl-3\.0'"):
        load(model_id, allow_licenses=["MIT"])

    assert hub.fetched == []


@pytest.mark.parametrize("model_id", ["org/name", "org/name/w.pth"])
def test_a_pickle_of_a_branch_is_refused_before_it_is_fetched(hub, model_id):
    commit = hub.adds("org/name", {"w.pth": WEIGHTS})
    with pytest.raises(InvalidOption, match=f"revision= .*{commit}' now") as caught:
        load(model_id)

    assert "is a pickle" in str(caught.value)
    assert hub.fetched == []


@pytest.mark.parametrize("model_id", ["org/name", "org/name/w.pth"])
def test_a_pickle_of_a_full_commit_is_taken(hub, model_id):
    commit = hub.adds("org/name", {"w.pth": WEIGHTS})

    assert sees_blue(load(model_id, revision=commit))


def test_a_full_commit_in_the_id_counts_as_well(hub):
    commit = hub.adds("org/name", {"w.pth": WEIGHTS})

    assert sees_blue(load(f"org/name@{commit}/w.pth"))


def test_a_pickle_may_be_trusted_by_its_hash(hub):
    hub.adds("org/name", {"w.pth": WEIGHTS})

    assert sees_blue(load("hf://org/name/w.pth", sha256=sha256(WEIGHTS)))


def test_another_hash_than_the_hub_gives_is_refused_before_it_is_fetched(hub):
    hub.adds("org/name", {"w.pth": WEIGHTS})
    with pytest.raises(HashMismatch, match="there instead of"):
        load("hf://org/name/w.pth", sha256="0" * 64)

    assert hub.fetched == []


@pytest.mark.parametrize("given", [{"sha256": "0" * 64}, {"model_type": "tiny"}])
def test_what_is_said_of_a_file_needs_a_file(hub, given):
    hub.adds("org/name.v2", {"w.onnx": WEIGHTS})
    with pytest.raises(InvalidOption, match=r"name the file, as in hf://org/name\.v2/"):
        load("hf://org/name.v2", **given)

    assert hub.requests == []


def test_a_file_may_be_said_to_be_of_a_type(hub):
    hub.adds("org/name", {"w.onnx": WEIGHTS})

    assert sees_blue(load("hf://org/name/w.onnx", model_type="tiny"))


def test_a_file_that_nothing_reads_is_named(hub):
    hub.adds("org/name", {"w.onnx": b"unknown"})
    with pytest.raises(InvalidWeights, match="no installed backend"):
        load()


# Which file it is


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["w.safetensors"], "w.safetensors"),
        (["w.onnx", "README.md", "onnx/other.onnx"], "w.onnx"),
        (["w.safetensors", "w.pth"], "w.safetensors"),
        (["w.safetensors", "w.bin", "optimizer.json"], "w.safetensors"),
    ],
)
def test_the_only_weights_at_the_top_are_taken(hub, files, taken):
    hub.adds("org/name", dict.fromkeys(files, WEIGHTS))

    assert sees_blue(load())
    assert hub.fetched == [taken]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["a.onnx", "b.onnx"], "'a.onnx', 'b.onnx'; name one, such as hf://org/name/a"),
        (["a.safetensors", "b.pth"], "'a.safetensors', 'b.pth'; name one"),
        (["onnx/a.onnx"], "'onnx/a.onnx'; name one, such as hf://org/name/onnx/a.onnx"),
        ([f"{n}.onnx" for n in range(9)], "'4.onnx' and 4 more; name one"),
        (["README.md", "a.gguf"], "no weights that are read here .*'README.md', 'a.gg"),
        ([], r"it has no files"),
    ],
)
def test_what_cannot_be_told_names_what_is_there(hub, files, words):
    hub.adds("org/name", dict.fromkeys(files, WEIGHTS))
    with pytest.raises(InvalidCard, match=words):
        load()

    assert hub.fetched == []


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"]
)
def test_pickled_weights_alone_are_refused_with_the_reason(hub, name):
    hub.adds("org/name", {"config.json": SMALL, name: b"pickle"})
    with pytest.raises(InvalidWeights, match=f"has no weights but '{name}', which are"):
        load()

    assert hub.fetched == []


# A folder


def test_a_folder_runs_from_what_it_needs(hub):
    needless = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "modeling.py"]
    needless += ["README.md", "picture.png", "onnx/model.onnx", "a/config.json"]
    needless += ["pytorch_model.bin.index.json", "training_args.bin", ".gitattributes"]
    needed = ["vocab.txt", "tokenizer.json", "spiece.model", "chat_template.jinja"]
    files = dict.fromkeys([*needless, *needed], b"{}") | FOLDER
    hub.adds("org/name", files)

    assert sees_blue(load())
    assert sorted(hub.fetched) == sorted([*needed, *FOLDER])


def test_a_folder_is_told_from_small_files_alone(hub):
    hub.adds("org/name", FOLDER)
    explained = str(AutoModel.explain("hf://org/name"))

    assert "tiny" in explained
    assert sorted(hub.fetched) == ["config.json", "preprocessor_config.json"]


def test_of_a_folder_only_what_its_claim_names_is_fetched(hub):
    config = {"model_type": "tiny", "files": ["config.json", "model.safetensors"]}
    files = FOLDER | {"config.json": json.dumps(config).encode(), "vocab.txt": b"a"}
    hub.adds("org/name", files)

    assert sees_blue(load())
    assert "vocab.txt" not in hub.fetched


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.json", "lacks 'missing.json', which its model needs"),
        ("modeling.py", "which is no file of tensors or settings"),
        ("pytorch_model.bin", "which is no file of tensors or settings"),
    ],
)
def test_a_claim_may_name_no_other_files(hub, name, words):
    config = {"model_type": "tiny", "files": ["config.json", name]}
    files = FOLDER | {"config.json": json.dumps(config).encode()}
    hub.adds("org/name", files | {"modeling.py": b"", "pytorch_model.bin": b""})
    with pytest.raises(InvalidWeights, match=words):
        load()


def index(*shards):
    return json.dumps(
        {"weight_map": {f"t{n}": s for n, s in enumerate(shards)}}
    ).encode()


def test_shards_are_fetched_with_their_index(hub):
    files = {"config.json": SMALL, "model.safetensors.index.json": index("a", "b")}
    files |= {"a.safetensors": weights(9), "b.safetensors": weights(9, 9)}
    hub.adds("org/name", files)

    assert sees_blue(load())
    assert sorted(hub.fetched) == sorted(files)


def test_an_index_beside_the_same_weights_in_one_file_is_left_out(hub):
    hub.adds("org/name", FOLDER | {"model.safetensors.index.json": index("a")})
    load()

    assert sorted(hub.fetched) == sorted(FOLDER)


def test_a_folder_that_nothing_claims_is_named_by_its_id(hub):
    config = json.dumps({"model_type": "tiny", "unknown": True}).encode()
    hub.adds("org/name", FOLDER | {"config.json": config})
    with pytest.raises(InvalidWeights, match="claims 'org/name', whose config names"):
        load()


def test_a_folder_that_nothing_reads_may_still_have_one_file_of_weights(hub):
    hub.adds("org/name", FOLDER | {"config.json": b'{"architecture": "resnet18"}'})
    model = load()

    assert sees_blue(model)
    assert model.card.artifacts[0].format == "tiny"


def test_a_settings_file_without_bounds_is_not_fetched(hub):
    large = b" " * 16_000_001
    hub.adds("org/name", FOLDER | {"config.json": large})
    with pytest.raises(InvalidCard, match=r"'config\.json' .* is larger than 16000000"):
        load()

    assert hub.fetched == []


# A card


def test_a_card_says_what_the_files_are(hub):
    hub.adds("org/name", {"card.json": card(), "w.onnx": WEIGHTS, "b.onnx": b"other"})
    model = load("hf://org/name@main", revision="main")

    assert sees_blue(model)
    assert (model.card.id, model.card.aliases) == ("org/name@main", ())
    assert hub.fetched == ["card.json", "w.onnx"]


def test_a_card_may_name_a_files_source_in_the_repository(hub):
    file = {"name": "w.onnx", "sources": ["onnx/model.onnx"]}
    contents = {
        "card.json": card(ARTIFACT | {"files": [file]}),
        "onnx/model.onnx": WEIGHTS,
    }
    hub.adds("org/name", contents)

    assert sees_blue(load())


@pytest.mark.parametrize("own", [None, "other"])
def test_the_hubs_licence_comes_before_the_cards(hub, own):
    facts = {"cardData": {"license": own}} if own else {}
    files = {"card.json": card(license="MIT"), "w.onnx": WEIGHTS}
    hub.adds("org/name", files, **facts)

    assert load().card.license == (own or "MIT")


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "https://example.org/w.onnx",
        "http://127.0.0.1:9/w.onnx",
        "wheel://a/1/w.onnx",
        "hf://other/name@" + "0" * 40 + "/w.onnx",
        "../w.onnx",
        "/etc/passwd",
        "missing.onnx",
    ],
)
@pytest.mark.parametrize("first", [(), ("w.onnx",)])
def test_a_card_reads_nothing_but_its_repository(hub, source, first):
    file = {"name": "w.onnx", "sources": [*first, source]}
    files = {"card.json": card(ARTIFACT | {"files": [file]}), "w.onnx": WEIGHTS}
    hub.adds("org/name", files)
    with pytest.raises(InvalidCard, match="is no file beside the card"):
        load()


@pytest.mark.parametrize(
    "facts",
    [
        {"sha256": "0" * 64},
        {"sha256": "0" * 8},
        {"size": 6},
    ],
)
def test_a_card_of_another_file_is_refused(hub, facts):
    file = {"name": "w.onnx"} | facts
    files = {"card.json": card(ARTIFACT | {"files": [file]}), "w.onnx": WEIGHTS}
    hub.adds("org/name", files)
    with pytest.raises(InvalidCard, match="is another file than the card promises"):
        load()


def test_a_cards_hash_is_held_beside_the_hubs_own(hub):
    artifact = {"format": "tiny", "graphs": {"main": "w.dat"}}
    file = {"name": "w.dat", "sha256": "0" * 64}
    files = {"card.json": card(artifact | {"files": [file]}), "w.dat": WEIGHTS}
    hub.adds("org/name", files)
    with pytest.raises(HashMismatch, match="instead of 0000"):
        load()


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("/etc", "is no id of a model of the Hub"),
        ("./model", "is no id of a model of the Hub"),
        ("file:///etc", "is no id of a model of the Hub"),
        ("resnet18", "is no id of a model of the Hub"),
        ("https://example.org/w.onnx", "is no id of a model of the Hub"),
        ("org/base/w.onnx", "is no id of a model of the Hub"),
    ],
)
def test_a_card_adapts_models_of_the_hub_alone(hub, base, words):
    files = {"card.json": card(ARTIFACT | {"base": base}), "w.onnx": WEIGHTS}
    hub.adds("org/name", files)
    with pytest.raises(InvalidCard, match=words):
        load()


def test_what_a_card_adapts_is_asked_of_the_hub(hub, tmp_path, monkeypatch):
    (tmp_path / "org/base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    files = {"card.json": card(ARTIFACT | {"base": "org/base"}), "w.onnx": WEIGHTS}
    hub.adds("org/name", files)
    hub.adds("org/base", {"w.onnx": WEIGHTS})

    assert sees_blue(load())
    assert hub.asked("/api/models/org/base") != []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read as JSON"),
        (b"[]", "a list and no mapping"),
        (b'{"id": 1, "id": 2}', "more than once"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": ' * 100_000, "cannot be read as JSON"),
        (card(extra=1), "has no field 'extra'"),
        (card(labels="red"), "labels must be a list"),
        (card(ARTIFACT | {"files": [{"name": "../w.onnx"}]}), "is not allowed"),
        (card(ARTIFACT | {"graphs": {"main": "/etc/passwd"}}), "is not allowed"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(hub, content, words):
    hub.adds("org/name", {"card.json": content, "w.onnx": WEIGHTS})
    with pytest.raises(InvalidCard, match=rf"card\.json of 'org/name'.*{words}"):
        load()


def test_a_card_may_not_have_engines_run_of_a_branch(hub):
    artifact = {"format": "tiny", "graphs": {"main": "w.engine"}}
    hub.adds("org/name", {"card.json": card(artifact), "w.engine": WEIGHTS})
    with pytest.raises(NoBackend, match="is an engine, which is native code"):
        load(allow_untrusted_packages=True)

    assert hub.fetched == ["card.json"]


# What arrives


def damaged(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_right_size_and_other_bytes_is_refused(hub, name):
    hub.adds("org/name", FOLDER)
    hub.damage[name] = damaged(FOLDER[name])
    with pytest.raises(HashMismatch, match=f"'{name}' has "):
        load()


def test_a_plain_file_is_held_to_gits_hash(hub):
    hub.adds("org/name", FOLDER)
    hub.damage["config.json"] = damaged(SMALL)
    with pytest.raises(HashMismatch, match=f"instead of {git_sha1(SMALL)}"):
        load()


def test_a_file_of_another_size_is_refused(hub):
    hub.adds("org/name", {"w.onnx": WEIGHTS})
    hub.damage["w.onnx"] = WEIGHTS * 2
    with pytest.raises(DownloadFailed, match="is longer than 7 bytes"):
        load()
