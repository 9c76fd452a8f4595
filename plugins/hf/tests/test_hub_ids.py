"""Ids of the Hub: what is one, what it names, and what is nobody's business there."""

from __future__ import annotations

import itertools
import random

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from inference_models import DownloadFailed, InvalidOption
from inference_models_hf.hub_ids import HubId, file_of, source_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("org/name", HubId("org/name")),
        ("Org_1/na.me-2", HubId("Org_1/na.me-2")),
        ("org/name@main", HubId("org/name", "main")),
        ("org/name@v1.0+x", HubId("org/name", "v1.0+x")),
        (f"org/name@{COMMIT}", HubId("org/name", COMMIT)),
        ("org/name@refs/pr/7", HubId("org/name", "refs/pr/7")),
        ("org/name@a%2Fb", HubId("org/name", "a/b")),
        ("org/name/w.onnx", HubId("org/name", None, "w.onnx")),
        ("org/name/a/b c/w.ONNX", HubId("org/name", None, "a/b c/w.ONNX")),
        ("org/name@v1/a/w.pth", HubId("org/name", "v1", "a/w.pth")),
        ("org/name@refs/pr/7/w.pth", HubId("org/name", "refs/pr/7", "w.pth")),
        ("org/name@refs/convert/x/w.pt", HubId("org/name", "refs/convert/x", "w.pt")),
        ("org/name/a@2/w.onnx", HubId("org/name", None, "a@2/w.onnx")),
    ],
)
def test_an_id_is_read_and_written_again(model_id, expected):
    assert HubId.read(model_id) == expected
    assert str(expected) == model_id


@pytest.mark.parametrize(
    "model_id",
    [
        "",
        "name",
        "resnet18",
        "org/",
        "/org/name",
        "./org/name",
        "~/org/name",
        "org//name",
        "org/-name",
        "org/name.",
        "org/na me",
        "org/naïve",
        "org/a--b",
        "org/a..b",
        "org/name.git",
        "org/" + "x" * 97,
        "org/name/",
        "org/name/3",
        "org/name/README.md",
        "org/name/model.py",
        "org/name/pytorch_model.bin",
        "org/name/../w.onnx",
        "org/name/./w.onnx",
        "org/name//w.onnx",
        "org/name/a\\w.onnx",
        "org/name/a\nw.onnx",
        "org/name@",
        "org/name@a b",
        "org/name@..",
        "org/name@-x",
        "org/name@a%2F..%2Fb",
        "org/name@a@b",
        "org@main/name",
        r"C:\org\name",
    ],
)
def test_what_is_no_id_of_the_hub_is_none(model_id):
    assert HubId.read(model_id) is None


def is_valid(repo):
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return False
    return True


def test_names_are_those_that_huggingface_hub_takes():
    draw = random.Random(0)
    short = itertools.product("aZ9_.-", repeat=3)
    names = ["".join(name) for name in short]
    names += ["".join(draw.choices("ab-_.", k=draw.randint(1, 96))) for _ in range(500)]
    names += ["x.git", "x.git2", "a" * 96]
    repos = [f"{name}/b" for name in names] + [f"b/{name}" for name in names]
    taken = [repo for repo in repos if HubId.read(repo) is not None]

    assert taken == [repo for repo in repos if is_valid(repo)]
    assert 200 < len(taken) < len(repos) - 200


def test_a_revision_may_be_said_beside():
    assert HubId.read("org/name", "v1") == HubId("org/name", "v1")
    assert HubId.read("org/name@v1/w.pt", "v1") == HubId("org/name", "v1", "w.pt")


def test_two_revisions_are_refused():
    with pytest.raises(InvalidOption, match="name different revisions; leave one out"):
        HubId.read("org/name@v1", "v2")


@pytest.mark.parametrize("revision", ["", "a b", "..", "-x", "a/../b", "é", 7])
def test_a_revision_that_is_none_is_refused(revision):
    with pytest.raises(InvalidOption, match="is no branch, tag or commit"):
        HubId.read("org/name", revision)


@pytest.mark.parametrize(
    ("revision", "is_pinned"),
    [(None, False), ("main", False), (COMMIT[:12], False), (COMMIT, True)],
)
def test_a_full_commit_alone_is_pinned(revision, is_pinned):
    assert HubId("org/name", revision).is_pinned is is_pinned


def test_a_source_names_its_file():
    source = source_of("org/name", COMMIT, "a b/w#1.onnx")

    assert source == f"hf://org/name@{COMMIT}/a b/w#1.onnx"
    assert file_of(source) == ("org/name", COMMIT, "a b/w#1.onnx")


@pytest.mark.parametrize(
    "source",
    [
        "hf://org/name@main/w.onnx",
        f"hf://org/name@{COMMIT}",
        f"hf://name@{COMMIT}/w.onnx",
        f"https://org/name@{COMMIT}/w.onnx",
    ],
)
def test_a_source_that_is_not_of_a_commit_is_refused(source):
    with pytest.raises(DownloadFailed, match="is no file of the Hub at a commit"):
        file_of(source)


def test_an_id_that_may_be_meant_as_a_path_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "; there is no file or folder 'org/name' here either"

    assert HubId("org/name").elsewhere == said
    (tmp_path / "org/name").mkdir(parents=True)
    assert HubId("org/name").elsewhere == ""
