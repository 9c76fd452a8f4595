"""The Hub's API: whom it is asked for, what is refused, and what cannot be read."""

from __future__ import annotations

import json
import logging
import traceback

import huggingface_hub
import pytest
from huggingface_hub import constants

from inference_models import (
    Access,
    DownloadFailed,
    Forbidden,
    InvalidCard,
    InvalidOption,
    ModelNotFound,
    Offline,
    RateLimited,
    Unauthorized,
    Unreachable,
)
from inference_models.download import ask
from inference_models_hf.hub import HubProvider
from inference_models_hf.hub_api import repository
from inference_models_hf.hub_ids import HubId
from inference_models_hf.hub_settings import Hub

from .hub_server import TOKEN, HubServer, hang_up, redirects, says

FILES = {"w.onnx": b"weights", "config.json": b"{}"}
ASKED = HubId("org/name")


def read(key=None, **facts):
    return Hub.read(Access(key, **facts))


def listed(key=None, asked=ASKED, tries=3):
    return repository(read(key), asked, tries)


def sent(hub):
    return [headers.get("Authorization") for _, headers in hub.requests]


# Settings


def test_the_endpoint_is_that_of_the_environment_now(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/mirror/")

    assert read().endpoint == "https://hub.example/mirror"


def test_the_endpoint_is_else_that_of_huggingface_hub(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")

    assert read().endpoint == "https://hub.example"


@pytest.mark.parametrize(
    "endpoint",
    ["http://hub.example", f"https://{TOKEN}@hub.example", f"https://a.b/?t={TOKEN}"],
)
def test_a_wrong_endpoint_is_named_and_not_shown(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(InvalidOption, match="HF_ENDPOINT is no https://") as caught:
        read()

    assert TOKEN not in str(caught.value)


def test_the_users_token_comes_before_all_others(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")

    assert read(TOKEN).token == TOKEN


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
@pytest.mark.parametrize("switch", ["0", "1"])
def test_a_token_may_stand_in_the_environment(monkeypatch, name, switch):
    monkeypatch.setenv(name, f" {TOKEN}\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", switch)

    assert read().token == TOKEN


@pytest.mark.parametrize("switch", ["0", "1"])
def test_a_token_may_lie_where_a_login_leaves_it(monkeypatch, tmp_path, switch):
    (tmp_path / "token").write_text(f"{TOKEN}\n", "utf-8")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_HUB_OFFLINE", switch)

    assert read().token == TOKEN


@pytest.mark.parametrize("switch", ["0", "1"])
def test_there_may_be_no_token(monkeypatch, switch):
    monkeypatch.setenv("HF_HUB_OFFLINE", switch)

    assert read().token is None


@pytest.mark.parametrize("said", ["1", "true", "YES"])
def test_a_token_that_nobody_gave_may_be_forbidden(monkeypatch, said):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", said)

    assert read().token is None
    assert read("hf_given").token == "hf_given"


@pytest.mark.parametrize("token", [f"{TOKEN} x", f"{TOKEN}\nX-Evil: 1", f"{TOKEN}é"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InvalidOption, match="check HF_TOKEN, or log in") as caught:
        read()
    told = traceback.TracebackException(
        type(caught.value), caught.value, caught.tb.tb_next, capture_locals=True
    )

    assert TOKEN not in "".join(told.format())


def test_a_token_that_cannot_be_got_is_no_strangers_error(monkeypatch):
    def fails():
        raise OSError(f"no answer for {TOKEN}")

    monkeypatch.setattr(huggingface_hub, "get_token", fails)
    with pytest.raises(Unauthorized, match=r"cannot get a token \(OSError\)") as caught:
        read()

    assert TOKEN not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_token_is_renewed_over_a_network_that_is_switched_off(monkeypatch):
    def fails():
        raise AssertionError("it may ask the network")

    monkeypatch.setattr(huggingface_hub, "get_token", fails)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert read().token is None


@pytest.mark.parametrize(
    ("settings", "found", "switch"),
    [
        ({}, False, None),
        ({}, True, "HF_HUB_OFFLINE"),
        ({"INFERENCE_MODELS_OFFLINE": "1"}, False, "INFERENCE_MODELS_OFFLINE"),
        ({"HF_HUB_OFFLINE": "ON"}, False, "HF_HUB_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "1"}, False, "HF_HUB_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0"}, True, None),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False, None),
    ],
)
def test_the_switches_are_read_when_they_are_needed(
    monkeypatch, settings, found, switch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", found)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    assert read().switch == switch


def test_extra_headers_go_along_and_replace_no_token(hub):
    hub.adds("org/name", FILES)
    access = Access(TOKEN, headers={"X-Team": "vision", "authorization": "other"})
    repository(Hub.read(access), ASKED, 1)
    headers = {name.lower(): value for name, value in hub.requests[0][1].items()}

    assert headers["x-team"] == "vision"
    assert headers["authorization"] == f"Bearer {TOKEN}"


def test_a_query_is_refused_and_not_shown():
    with pytest.raises(InvalidOption, match="the Hub takes none") as caught:
        read(query={"tag": TOKEN})

    assert TOKEN not in str(caught.value)


# What is asked


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (ASKED, "/api/models/org/name?blobs=true"),
        (HubId("org/name", "v1"), "/api/models/org/name/revision/v1?blobs=true"),
        (
            HubId("org/name", "refs/pr/7"),
            "/api/models/org/name/revision/refs%2Fpr%2F7?blobs=true",
        ),
    ],
)
def test_a_revision_is_a_part_of_the_path(hub, asked, path):
    known = hub.adds("org/name", FILES)
    for branch in ("v1", "refs/pr/7"):
        hub.repositories["org/name"].branches[branch] = known

    assert listed(asked=asked).commit == known
    assert hub.requests[0][0] == path


def test_the_token_goes_in_the_header(hub):
    hub.adds("org/name", FILES, private=True)

    assert listed(TOKEN).is_open is False
    assert sent(hub) == [f"Bearer {TOKEN}"]


def test_without_a_token_no_header_is_sent(hub):
    hub.adds("org/name", FILES)

    assert listed().is_open is True
    assert sent(hub) == [None]


def test_an_endpoint_may_have_a_path(monkeypatch):
    with HubServer("/mirror/hf") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.adds("org/name", FILES)
        listed()
        url, _ = HubProvider().request(listed().file("w.onnx").sources[0], Access())

        assert running.asked("/mirror/hf/api/models/org/name") != []
        assert url.startswith(f"{running.endpoint}/org/name/resolve/")


def test_a_repository_that_was_renamed_is_found(hub):
    hub.adds("org/new", FILES)
    hub.moved["org/name"] = "org/new"

    assert listed(TOKEN).id == "org/name"
    assert sent(hub) == [f"Bearer {TOKEN}"] * 2


def test_a_redirect_takes_the_token_nowhere(hub):
    with HubServer() as other:
        hub.faults = [redirects(f"{other.endpoint}/api/models/org/name", 307)]
        with pytest.raises(DownloadFailed, match="answered 307"):
            listed(TOKEN)

        assert other.requests == []


def test_files_are_held_to_the_hashes_of_the_hub(hub):
    commit = hub.adds("org/name", FILES)
    found = listed()
    large, plain = found.file("w.onnx"), found.file("config.json")

    assert large.sources == (f"hf://org/name@{commit}/w.onnx",)
    assert (large.size, len(large.sha256), large.git_sha1) == (7, 64, None)
    assert (plain.size, plain.sha256, len(plain.git_sha1)) == (2, None, 40)


@pytest.mark.parametrize(
    ("facts", "license_id"),
    [
        ({}, None),
        ({"cardData": {"license": "apache-2.0"}}, "apache-2.0"),
        ({"cardData": {"license": ["mit", "cc-by-4.0"]}}, "mit AND cc-by-4.0"),
        ({"cardData": {"license": []}}, None),
        ({"tags": ["onnx", "license:mit"]}, "mit"),
        ({"cardData": {"license": None}, "tags": ["license:mit"]}, "mit"),
        ({"cardData": {"license": "mit"}, "tags": ["license:other"]}, "mit"),
    ],
)
def test_the_licence_is_that_of_the_model_card(hub, facts, license_id):
    hub.adds("org/name", FILES, **facts)

    assert listed().license == license_id


@pytest.mark.parametrize(
    ("facts", "gated", "is_open"),
    [
        ({}, False, True),
        ({"gated": None}, False, True),
        ({"gated": "auto"}, True, False),
        ({"gated": "manual"}, True, False),
        ({"gated": True}, True, False),
    ],
)
def test_a_gated_repository_is_not_open(hub, facts, gated, is_open):
    hub.adds("org/name", FILES, **facts)
    found = listed()

    assert (found.is_gated, found.is_open) == (gated, is_open)


# Statuses


def coded(status, code=None, message="No"):
    named = {"X_Error_Code": code} if code else {}
    return says(status, X_Error_Message=message, **named)


MISSING = (
    "if it is private, set HF_TOKEN, log in (hf auth login), or give hf://org/name"
)
DISABLED = "Access to this resource is disabled."


@pytest.mark.parametrize(
    ("fault", "key", "error", "words"),
    [
        (coded(401), None, ModelNotFound, "no public model of the id 'org/name'"),
        (coded(401, "RepoNotFound"), None, ModelNotFound, MISSING),
        (coded(401, "RepoNotFound"), TOKEN, ModelNotFound, "that this token may see"),
        (coded(404, "RepoNotFound"), TOKEN, ModelNotFound, MISSING),
        (coded(404), TOKEN, ModelNotFound, "no file or folder 'org/name' here either"),
        (coded(404, "RevisionNotFound"), None, ModelNotFound, "has no revision 'main'"),
        (coded(401), TOKEN, Unauthorized, "refused the token, which may have expired"),
        (coded(401, "GatedRepo"), None, Forbidden, "a token is missing, of an account"),
        (coded(403, "GatedRepo"), TOKEN, Forbidden, "a token is not one of an account"),
        (coded(403), TOKEN, Forbidden, "says that the token may not read it"),
        (coded(403, message=DISABLED), None, Forbidden, "is disabled by 127.0.0.1"),
        (coded(418), None, DownloadFailed, "answered 418, which is no answer"),
        (coded(302), None, DownloadFailed, "answered 302"),
        (says(429, Retry_After=600), None, RateLimited, "try again in 600 s"),
        (coded(429), None, RateLimited, "wants fewer requests (429); try again"),
        (coded(500), None, Unreachable, "answered 500; check the network"),
        (coded(503), None, Unreachable, "no file or folder 'org/name' here either"),
        (hang_up, None, Unreachable, "not reached: "),
    ],
)
def test_each_status_is_an_error_of_its_own(hub, fault, key, error, words):
    hub.faults = [fault] * 3
    with pytest.raises(error) as caught:
        listed(key)

    assert type(caught.value) is error
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_gated_repository_names_the_page_of_its_terms(hub):
    hub.faults = [coded(403, "GatedRepo")]
    with pytest.raises(Forbidden, match=f"accept them at {hub.endpoint}/org/name, and"):
        listed(TOKEN)


def test_a_disabled_repository_is_refused(hub):
    hub.adds("org/name", FILES, disabled=True)
    with pytest.raises(Forbidden, match="is disabled by"):
        listed()


def test_a_hub_that_is_not_there_is_named():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 was asked .* not reached"):
        listed(tries=1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again(hub, status):
    hub.adds("org/name", FILES)
    hub.faults = [coded(status)] * 2

    assert listed().id == "org/name"
    assert len(hub.requests) == 3


def test_the_wait_that_the_hub_asks_for_is_kept(hub, monkeypatch):
    waits = []
    monkeypatch.setattr(ask.time, "sleep", waits.append)
    hub.adds("org/name", FILES)
    hub.faults = [says(429, Retry_After=7)]
    listed()

    assert waits == [7]


# Answers that cannot be read


COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRY = {"rfilename": "w.onnx", "size": 7, "blobId": "0" * 40}
LFS = {"sha256": "0" * 64, "size": 7, "pointerSize": 134}


def metadata(**changes):
    facts = {"id": "org/name", "sha": COMMIT, "siblings": [ENTRY]} | changes
    return json.dumps(facts).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>log in</html>", "cannot be read as JSON"),
        (metadata()[:-9], "cannot be read as JSON"),
        (metadata(likes=float("nan")), "NaN is no number"),
        (metadata()[:-1] + b', "sha": "other"}', "'sha' is there more than once"),
        (b" " * 16_000_001, "larger than 16000000 bytes"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "nested deeper than 32"),
        (b'{"a": ' * 100_000, "cannot be read as JSON"),
        (b"[1]", "a list and no mapping"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b"{}", "sha is missing"),
        (metadata(sha=7), "sha must be a text, not a number"),
        (metadata(sha="main"), "sha is no commit"),
        (metadata(sha=COMMIT.upper()), "sha is no commit"),
        (metadata(siblings=None), "siblings"),
        (b'{"sha": "%s"}' % COMMIT.encode(), "siblings is missing"),
        (metadata(siblings={}), "siblings must be a list"),
        (metadata(siblings=[3]), "entry 0 is a number"),
        (metadata(siblings=[{}]), "rfilename is missing"),
        (metadata(siblings=[{"rfilename": 3}]), "rfilename must be a text"),
        (metadata(siblings=[{"rfilename": ""}]), "rfilename is empty"),
        (metadata(siblings=[ENTRY, ENTRY]), "'w.onnx' is there more than once"),
        (metadata(siblings=[ENTRY | {"rfilename": "../x"}]), "leaves the repository"),
        (metadata(siblings=[ENTRY | {"rfilename": "a/../x"}]), "leaves the repository"),
        (metadata(siblings=[ENTRY | {"rfilename": "/etc/x"}]), "leaves the repository"),
        (metadata(gated="sometimes"), "gated 'sometimes' is not one of"),
        (metadata(gated=3), "gated must be a text"),
        (metadata(private="no"), "private must be true or false"),
        (metadata(disabled=1), "disabled must be true or false"),
        (metadata(cardData=[]), "cardData must be a mapping"),
        (metadata(cardData={"license": 3}), "license must be a text"),
        (metadata(cardData={"license": [3]}), "license must hold texts alone"),
        (metadata(tags="license:mit"), "tags must be a list"),
        (metadata(tags=[3]), "tags must hold texts alone"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused(hub, content, reason):
    hub.faults = [says(200, content)]
    if content == metadata(siblings=None):
        assert listed().entries == {}
        return
    with pytest.raises(InvalidCard, match=reason):
        listed()


def test_an_answer_without_end_is_cut(hub):
    sent = []

    def pours(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(64):
            handler.wfile.write(b" " * 1_000_000)
            sent.append(1)

    hub.faults = [pours]
    with pytest.raises(InvalidCard, match="larger than 16000000 bytes"):
        listed()

    assert len(sent) < 64


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": None}, "size is missing"),
        ({"size": "7"}, "size must be a number"),
        ({"size": -1}, "size -1 is not from 0"),
        ({"size": 1.5}, "size 1.5 is no whole number"),
        ({"size": 1 << 60}, "is not from 0"),
        ({"blobId": None}, "blobId is missing"),
        ({"blobId": 7}, "blobId must be a text"),
        ({"blobId": "0" * 39}, "blobId is no hash of a file"),
        ({"blobId": "g" * 40}, "git_sha1 .* is not 40 lower-case hexadecimal"),
        ({"lfs": []}, "lfs must be a mapping"),
        ({"lfs": {}}, "lfs: size is missing"),
        ({"lfs": LFS | {"sha256": None}}, "sha256 is missing"),
        ({"lfs": LFS | {"sha256": "0" * 8}}, "sha256 is no hash of a file"),
        ({"lfs": LFS | {"sha256": "g" * 64}}, "sha256 .* hexadecimal digits"),
        ({"rfilename": "a:b.onnx"}, "file name 'a:b.onnx' is not allowed"),
        ({"rfilename": "aux.onnx"}, "file name 'aux.onnx' is not allowed"),
    ],
)
def test_a_files_facts_that_cannot_be_are_refused(hub, changes, reason):
    entry = ENTRY | changes
    hub.faults = [says(200, metadata(siblings=[entry]))]
    with pytest.raises(InvalidCard, match=reason):
        listed().file(entry["rfilename"])


def test_a_byte_order_mark_changes_nothing(hub):
    hub.faults = [says(200, b"\xef\xbb\xbf" + metadata())]

    assert listed().commit == COMMIT


def test_another_commit_than_was_asked_for_is_refused(hub):
    hub.faults = [says(200, metadata(sha="f" * 40))]
    with pytest.raises(InvalidCard, match="another commit than was asked for"):
        listed(asked=HubId("org/name", COMMIT))


# What is not told


def test_neither_token_nor_address_is_logged_or_shown(hub, caplog):
    caplog.set_level(logging.DEBUG)
    hub.adds("org/name", FILES, private=True)
    hub.faults = [coded(503)]
    found = listed(TOKEN)

    shown = [repr(read(TOKEN)), repr(read(TOKEN).headers()), repr(found), caplog.text]
    assert TOKEN not in "".join(shown)
    assert "/api/models" not in caplog.text


def test_offline_nothing_is_asked(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="HF_HUB_OFFLINE is set, and 'org/name' was not"):
        HubProvider().find("org/name", Access())
    with pytest.raises(Offline, match="HF_HUB_OFFLINE is set"):
        HubProvider().request(f"hf://org/name@{COMMIT}/w.onnx", Access())

    assert hub.requests == []
