"""Roboflow's weights API: what is asked, what is refused, and what is remembered."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
import traceback
from email.utils import formatdate

import numpy as np
import pytest

from inference_models import (
    Access,
    AutoModel,
    DownloadFailed,
    Forbidden,
    InvalidCard,
    InvalidOption,
    ModelNotFound,
    NoBackend,
    Offline,
    PaymentRequired,
    RateLimited,
    Unauthorized,
    Unreachable,
    UsagePaused,
)
from inference_models.download import ask
from inference_models.download.ask import Terms
from inference_models.providers import roboflow_api
from inference_models.providers.roboflow import RoboflowProvider
from inference_models.testing import WeightsProviderTests

from .roboflow_server import KEY, SIGNATURE, RoboflowServer, answer, package

WEIGHTS = b'{"gain": [9, 9, 9]}'
NAMES = b"red\ngreen\nblue\n"
NETWORK = {"training_input_size": {"height": 16, "width": 16}, "scaling_factor": 255}
CONFIG = json.dumps({"network_input": NETWORK}).encode()
FILES = {
    "weights.onnx": WEIGHTS,
    "class_names.txt": NAMES,
    "inference_config.json": CONFIG,
}
BLUE = np.full((9, 12, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def server(monkeypatch):
    """Knows one model with one package of three files; nothing waits between tries."""
    with RoboflowServer() as running:
        monkeypatch.setenv("ROBOFLOW_API_HOST", running.host)
        monkeypatch.setattr(ask.time, "sleep", lambda seconds: None)
        running.adds(
            "ws/project/3",
            package(files=FILES),
            contents=FILES,
            aliases=("project/3", "public-one"),
        )
        yield running


@pytest.fixture
def plugin(acme, monkeypatch):
    """A backend that reads the format of the package."""
    monkeypatch.setattr(acme.AcmeBackend, "formats", ("acme", "onnx"))
    return acme


def find(model_id="project/3", key=KEY):
    return RoboflowProvider().find(model_id, Access(key))


def load(model_id="project/3", key=KEY, **parameters):
    return AutoModel.from_pretrained(model_id, api_key=key, **parameters)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# What is asked


@pytest.mark.parametrize("model_id", ["project/3", "ws/project/3", "public-one"])
def test_an_id_is_asked_with_the_key_in_the_header(server, model_id):
    card = find(model_id)

    assert (card.id, card.task) == ("ws/project/3", "classification")
    assert server.asked == [{"modelId": [model_id]}]
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"


def test_the_key_may_stand_in_the_environment(server, monkeypatch):
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)

    assert find(key=None).id == "ws/project/3"


@pytest.mark.parametrize("key", [None, "local"])
def test_without_a_key_no_header_is_sent(server, key):
    server.key = None
    find(key=key)

    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize(
    "model_id",
    ["org/name", "a/b/c/3", "weights.onnx", "./project/3", "a/b/c", "project/x3", "é"],
)
def test_what_is_no_id_of_roboflow_is_not_asked(server, model_id):
    assert find(model_id) is None
    assert server.requests == []


def test_roboflow_may_be_asked_alone(server, plugin):
    assert load("roboflow://project/3").card.id == "ws/project/3"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Unauthorized), (403, Forbidden), (404, ModelNotFound), (503, Unreachable)],
)
def test_a_bare_id_that_roboflow_alone_is_asked_for_fails_for_its_reason(
    server, acme, status, error
):
    server.faults = [(status,)] * 9
    with pytest.raises(error, match="public-one") as raised:
        load("roboflow://public-one", key=None)

    assert type(raised.value) is error


def test_offline_a_bare_id_that_roboflow_alone_is_asked_for_says_so(acme, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline, match="'public-one' was not loaded here before"):
        load("public-one", weights_provider="roboflow")


def test_extra_headers_and_queries_override_neither_key_nor_model(server):
    access = Access(
        KEY,
        headers={"X-Team": "vision", "authorization": "Bearer other"},
        query={"tag": "blue", "modelId": "other/1", "startAfter": "7"},
    )
    card = RoboflowProvider().find("project/3", access)

    assert card.id == "ws/project/3"
    assert server.asked == [{"tag": ["blue"], "modelId": ["project/3"]}]
    headers = {name.lower(): value for name, value in server.requests[0][1].items()}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-team"] == "vision"


def test_extra_headers_and_queries_are_given_as_parameters(server, plugin):
    model = load(
        weights_provider_extra_headers={"X-Team": KEY},
        weights_provider_extra_query_params=[("tag", KEY)],
    )

    assert {query["tag"][0] for query in server.asked} == {KEY}
    assert KEY not in pickle.dumps(model).decode("latin-1")


@pytest.mark.parametrize("given", [3, "a=b", [("a", KEY, "c")], {"a": 7}, {"a": None}])
def test_extra_queries_that_are_none_are_refused_and_not_shown(server, given):
    with pytest.raises(InvalidOption, match="is no mapping of texts") as caught:
        load(weights_provider_extra_query_params=given)

    assert KEY not in str(caught.value)


def test_an_answer_that_never_comes_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(roboflow_api, "TERMS", Terms(total=0.1))
    released = threading.Event()
    server.faults = [lambda handler: released.wait(60)] * 3
    with pytest.raises(Unreachable, match="took longer than"):
        find()
    released.set()


@pytest.mark.parametrize("name", ["SECURE_GATEWAY", "LICENSE_SERVER"])
def test_a_gateway_passes_questions_and_files_on(server, plugin, monkeypatch, name):
    monkeypatch.setenv(name, server.host)
    load()

    assert all(path.startswith("/proxy?url=") for path, _ in server.requests)


@pytest.mark.parametrize(
    ("environment", "region", "host"),
    [
        (None, None, "https://api.roboflow.com"),
        ("prod", "eu", "https://api.roboflow.eu"),
        ("staging", "us", "https://api.roboflow.one"),
        ("STAGING", "eu", "https://api.roboflow-eu.one"),
    ],
)
def test_the_host_is_that_of_environment_and_region(
    environment, region, host, monkeypatch
):
    monkeypatch.delenv("ROBOFLOW_API_HOST")
    for name, value in [("ENVIRONMENT", environment), ("REGION", region)]:
        if value:
            monkeypatch.setenv(f"ROBOFLOW_{name}", value)

    assert roboflow_api.Server.read(Access()).host == host


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROBOFLOW_REGION", "moon"),
        ("ROBOFLOW_API_HOST", "http://example.org"),
        ("ROBOFLOW_API_HOST", f"https://user:{KEY}@example.org"),
        ("ROBOFLOW_API_HOST", "https://example.org:port"),
        ("ROBOFLOW_API_HOST", f"https://example.org?token={KEY}"),
        ("SECURE_GATEWAY", "example.org"),
        ("ROBOFLOW_API_KEY", f"{KEY}\nX-Evil: 1"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(name, value, monkeypatch):
    if name == "ROBOFLOW_REGION":
        monkeypatch.delenv("ROBOFLOW_API_HOST")
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidOption) as caught:
        find(key=None)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", [f"{KEY}\n", f"{KEY}\x00", f"{KEY}é"])
def test_a_header_that_cannot_be_sent_is_named_and_not_shown(server, value):
    with pytest.raises(InvalidOption, match="header 'X-Token' is none") as caught:
        RoboflowProvider().find("project/3", Access(KEY, headers={"X-Token": value}))

    assert KEY not in str(caught.value)


def test_spaces_around_a_header_are_left_out(server):
    RoboflowProvider().find("project/3", Access(KEY, headers={"X-Token": " a b "}))

    assert server.requests[0][1]["x-token"] == "a b"


# Pages


def test_packages_of_all_pages_are_artifacts_of_one_card(server):
    server.adds("many/1", *(package(f"p{n}", FILES) for n in range(5)), contents=FILES)
    server.page_size = 2

    assert len(find("many/1").artifacts) == 5
    assert [q.get("startAfter") for q in server.asked] == [None, ["2"], ["4"]]


def test_at_most_ten_pages_are_read(server, caplog):
    server.adds("many/1", *(package(f"p{n}", FILES) for n in range(12)), contents=FILES)
    server.page_size = 1

    assert len(find("many/1").artifacts) == 10
    assert len(server.requests) == 10
    (warning,) = warnings_of(caplog)
    assert "more than 10 pages" in warning


def test_pages_that_lead_in_a_circle_are_refused(server):
    metadata = server._page(server.models["project/3"], 0)
    metadata["modelMetadata"]["nextPage"] = "again"
    server.faults = [(200, metadata)] * 10
    with pytest.raises(InvalidCard, match="nextPage leads back"):
        find()


# Statuses


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (401, Unauthorized, "refused the key; check api_key="),
        (402, PaymentRequired, "upgrade"),
        (403, Forbidden, "a key of the model's workspace"),
        (404, ModelNotFound, "check its project and version"),
        (423, UsagePaused, "billing"),
        (429, RateLimited, "try again"),
        (500, Unreachable, "answered 500"),
        (503, Unreachable, "answered 503"),
        (302, DownloadFailed, "answered 302"),
        (418, DownloadFailed, "answered 418"),
    ],
)
def test_each_status_is_an_error_of_its_own(server, status, error, advice):
    server.faults = [(status,)] * 9
    with pytest.raises(error, match=advice) as caught:
        find()

    assert type(caught.value) is error
    assert "'project/3'" in str(caught.value)


def test_without_a_key_the_advice_is_to_give_one(server):
    with pytest.raises(Unauthorized, match=r"give api_key=\.\.\. or set ROBOFLOW_API"):
        find(key=None)


def test_a_bare_id_that_is_not_there_goes_on_to_other_providers(server, acme):
    assert find("publc-one") is None
    with pytest.raises(ModelNotFound, match="did you mean 'acme-colors'"):
        load("acme-color")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_bare_id_without_a_key_is_simply_unknown(server, status):
    server.faults = [(status,)]

    assert find("public-one", key=None) is None


def test_a_bare_id_costs_one_try_where_there_is_no_network(server, caplog):
    server.faults = [(503,)] * 9

    assert find("public-one") is None
    assert len(server.requests) == 1
    (warning,) = warnings_of(caplog)
    assert "may be unknown for this reason alone" in warning


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_again(server, status):
    server.faults = [(status,)] * 2

    assert find().id == "ws/project/3"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 423])
def test_what_stays_is_asked_once(server, status):
    server.faults = [(status,)] * 2
    with pytest.raises((DownloadFailed, ModelNotFound)):
        find()

    assert len(server.requests) == 1


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()


def test_a_connection_that_breaks_is_tried_again(server):
    server.faults = [hang_up, hang_up]

    assert find().id == "ws/project/3"


def test_a_host_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(ask.time, "sleep", lambda seconds: None)
    with pytest.raises(Unreachable, match=r"not reached: .*127\.0\.0\.1:9"):
        find()


def test_the_wait_that_a_server_asks_for_is_kept(server, monkeypatch):
    waits = []
    monkeypatch.setattr(ask.time, "sleep", waits.append)
    later = formatdate(time.time() + 20, usegmt=True)
    server.faults = [
        lambda h: answer(h, 429, headers={"Retry-After": "7"}),
        lambda h: answer(h, 503, headers={"Retry-After": later}),
    ]
    find()

    assert waits[0] == 7
    assert 15 < waits[1] <= 20


@pytest.mark.parametrize("value", ["garbage", "-3", "", "99999999999999999999"])
def test_a_wait_that_says_nothing_is_our_own(server, monkeypatch, value):
    waits = []
    monkeypatch.setattr(ask.time, "sleep", waits.append)
    server.faults = [lambda h: answer(h, 429, headers={"Retry-After": value})]
    find()

    assert waits == [0.5]


def test_a_wait_of_minutes_is_left_to_the_user(server):
    server.faults = [lambda h: answer(h, 429, headers={"Retry-After": "600"})] * 3
    with pytest.raises(RateLimited, match="try again in 600 s"):
        find()

    assert len(server.requests) == 1


def test_a_redirect_takes_the_key_nowhere(server):
    with RoboflowServer() as other:
        target = other.url("/models")
        server.faults = [lambda h: answer(h, 302, headers={"Location": target})]
        with pytest.raises(DownloadFailed, match="302"):
            find()

        assert other.requests == []


# Answers that cannot be read


GOOD = {
    "type": "external-model-metadata-v1",
    "modelId": "ws/project/3",
    "modelArchitecture": "acme-colors",
    "taskType": "classification",
    "modelPackages": [],
}


# Comparing each key with all others would take half an hour.
REPEATING = json.dumps(dict.fromkeys(range(300_000))).encode()[:-1] + b', "299999": 0}'


def metadata(**changes):
    return json.dumps({"modelMetadata": GOOD | changes}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>log in</html>", "cannot be read as JSON"),
        (metadata()[:-9], "cannot be read as JSON"),
        (metadata(recommendedParameters={"confidence": float("nan")}), "NaN is no"),
        (b'{"modelMetadata": 1, "modelMetadata": 2}', "is there more than once"),
        (REPEATING, "'299999' is there more than once"),
        (b" " * 8_000_001, "larger than 8000000 bytes"),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, "nested deeper than 32"),
        (b'{"a": ' * 100_000, "cannot be read as JSON"),
        (b"[1]", "a list and no mapping"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b"{}", "modelMetadata is missing"),
        (b'{"modelMetadata": []}', "must be a mapping, not a list"),
        (metadata(type="external-model-metadata-v9"), "this version reads"),
        (metadata(modelId=7), "modelId must be a text, not a number"),
        (metadata(modelId=""), "modelId is empty"),
        (metadata(modelId="x" * 10_001), "modelId is longer than 10000 characters"),
        (metadata(modelId="\ud800"), "modelId holds half of a character"),
        (metadata(nextPage="\udfff"), "nextPage holds half of a character"),
        (metadata(taskType=None), "taskType is missing"),
        (metadata(modelPackages={}), "modelPackages must be a list"),
        (metadata(modelPackages=[3]), "entry 0 is a number"),
        (metadata(modelPackages=None), "modelPackages"),
        (b'{"modelMetadata": {"type": "external-model-metadata-v1"}}', "is missing"),
        (metadata(nextPage=5), "nextPage must be a text"),
        (metadata(recommendedParameters={"confidence": 4}), "is not from 0 to 1"),
        (metadata(recommendedParameters={"confidence": 10**400}), "is not from 0"),
    ],
)
def test_an_answer_that_cannot_be_read_is_refused(server, content, reason):
    server.faults = [(200, content)]
    if content == metadata(modelPackages=None):
        assert find().artifacts == ()
        return
    with pytest.raises(InvalidCard, match=reason):
        find()


def test_a_byte_order_mark_changes_nothing(server):
    server.faults = [(200, b"\xef\xbb\xbf" + metadata())]

    assert find().id == "ws/project/3"


# From the id to predictions


def test_a_package_loads_and_runs(server, plugin):
    model = load()

    assert model.class_names == ["red", "green", "blue"]
    assert model(BLUE).confidence[0]["blue"] > 0.9


def test_every_file_gets_an_address_signed_just_then(server, plugin):
    load()
    serials = [path.rpartition("serial=")[2] for path in server.fetched]

    assert len(server.fetched) == 3
    assert len(set(serials)) == 3
    assert len(server.asked) == 4


def test_every_try_gets_an_address_of_its_own(server, plugin):
    server.file_faults = [503, 503]
    load()
    first = [path for path in server.fetched if "/weights.onnx?" in path]

    assert len(first) == 3
    assert len({path.rpartition("serial=")[2] for path in first}) == 3


def test_files_are_asked_for_without_the_key(server, plugin):
    load()
    sent = [h for path, h in server.requests if path.startswith("/files")]

    assert len(sent) == 3
    assert all("Authorization" not in headers for headers in sent)


def test_what_is_in_the_cache_is_not_fetched_again(server, plugin):
    load()
    server.fetched.clear()
    load()

    assert server.fetched == []


def test_a_file_that_is_another_than_promised_is_refused(server, plugin):
    server.contents["weights.onnx"] = WEIGHTS
    entry = package(files=["weights.onnx"])
    entry["packageFiles"] = [
        server._file_entry("weights.onnx") | {"md5Hash": "0" * 32},
    ]
    server.adds("bad/1", entry)
    with pytest.raises(DownloadFailed, match=r"weights\.onnx"):
        load("bad/1")


def test_a_package_that_is_gone_is_named(server, plugin):
    card = find()
    server.adds("ws/project/3", package("other", files=FILES), contents=FILES)
    source = card.artifacts[0].files[0].sources[0]
    with pytest.raises(DownloadFailed, match="no longer has package 'abc123'"):
        RoboflowProvider().request(source, Access(KEY))


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_an_address_that_is_not_encrypted_is_not_fetched(server, scheme):
    source = find().artifacts[0].files[0].sources[0]
    entry = package()
    url = f"{scheme}://example.org/weights.onnx?{SIGNATURE}"
    entry["packageFiles"] = [{"fileHandle": "weights.onnx", "downloadUrl": url}]
    server.adds("ws/project/3", entry)
    with pytest.raises(InvalidCard, match="is no https:// address") as caught:
        RoboflowProvider().request(source, Access(KEY))

    assert SIGNATURE not in str(caught.value)


def test_a_model_of_an_unknown_architecture_says_what_is_missing(server, plugin):
    server.adds("new/1", package(files=FILES), modelArchitecture="yolo99")
    with pytest.raises(NoBackend, match="offers architecture 'yolo99'"):
        load("new/1")


# What is remembered


@pytest.fixture
def warm(server, plugin):
    """A server whose one model was loaded before, and is in the cache."""
    load()
    server.requests.clear()
    server.fetched.clear()
    return server


def test_offline_a_model_of_the_cache_loads_without_a_request(warm, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert load()(BLUE).confidence[0]["blue"] > 0.9
    assert warm.requests == []


def test_offline_what_is_not_remembered_is_named(server, monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline, match="'project/3' was not loaded here before"):
        find()

    assert find("public-one") is None
    assert server.requests == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_key_that_expired_or_an_outage_costs_one_warning(warm, caplog, status):
    warm.faults = [(status,)] * 9
    model = load()

    assert model(BLUE).confidence[0]["blue"] > 0.9
    assert len(warm.requests) == 1
    (warning,) = warnings_of(caplog)
    assert "project/3 is loaded as it was known before" in warning


def test_an_outage_that_answers_with_a_page_costs_one_warning(warm, caplog):
    warm.faults = [(200, b"<html>log in to this network</html>")]
    load()

    assert len(warnings_of(caplog)) == 1


def test_a_server_that_is_gone_costs_one_warning(plugin, monkeypatch, caplog):
    monkeypatch.setattr(ask.time, "sleep", lambda seconds: None)
    with RoboflowServer() as running:
        monkeypatch.setenv("ROBOFLOW_API_HOST", running.host)
        running.adds("ws/project/3", package(files=FILES), contents=FILES)
        load("ws/project/3")
    load("ws/project/3")

    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(402, PaymentRequired), (404, ModelNotFound), (423, UsagePaused)],
)
def test_what_the_server_says_of_the_model_stands(warm, status, error):
    warm.faults = [(status,)]
    with pytest.raises(error):
        load()


def test_a_file_that_is_missing_fails_for_the_servers_reason(server, plugin):
    find()
    server.faults = [(401,)] * 9
    with pytest.raises(Unauthorized, match="refused the key"):
        load()


@pytest.mark.parametrize("key", ["another-key", None])
def test_another_key_does_not_see_what_this_one_may(warm, monkeypatch, key):
    warm.faults = [(401,)] * 9
    with pytest.raises(Unauthorized):
        load(key=key)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline):
        load(key=key)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"card": 3}', b'{"card": {"id": "x"}}', b"\xff"]
)
def test_a_damaged_memory_is_no_memory(warm, monkeypatch, tmp_path, content):
    (path,) = (tmp_path / "cache" / "answers").glob("*.json")
    path.write_bytes(content)
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")
    with pytest.raises(Offline):
        load()


def test_a_cache_that_cannot_be_written_is_no_obstacle(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "file" / "cache"))

    assert find().id == "ws/project/3"


# Secrets


def written_below(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = "\n".join(map(str, folder.rglob("*"))).encode()
    return names + b"\n".join(path.read_bytes() for path in files)


def assert_no_secret(text):
    for secret in (KEY, SIGNATURE, SIGNATURE.partition("=")[2]):
        assert secret not in text


def test_neither_key_nor_signature_is_kept_or_logged(server, plugin, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    model = load()
    shown = [repr(model), str(model.explanation), repr(model.card)]
    shown += [caplog.text, repr(Access(KEY)), repr(model._loaded)]
    dumped = pickle.dumps(model) + pickle.dumps(Access(KEY, query={"token": KEY}))

    assert_no_secret("\n".join(shown))
    assert_no_secret(dumped.decode("latin-1"))
    assert_no_secret(written_below(tmp_path / "cache").decode("latin-1"))


def stall(handler):
    threading.Event().wait(2)


@pytest.mark.parametrize(
    "fault", [(401,), (404,), (423,), (500,), (200, b"{"), hang_up, stall]
)
def test_no_error_shows_a_secret(server, caplog, monkeypatch, fault):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(roboflow_api, "TERMS", Terms(total=0.3))
    server.faults = [fault] * 9
    access = Access(KEY, headers={"X-Token": KEY}, query={"token": KEY})
    with pytest.raises((DownloadFailed, ModelNotFound, InvalidCard)) as caught:
        RoboflowProvider().find("project/3", access)
    told = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )

    assert_no_secret(str(caught.value) + repr(caught.value) + caplog.text)
    ours = [frame for frame in told.stack if "inference_models" in frame.filename]
    assert ours
    assert_no_secret("".join(map(repr, (frame.locals for frame in ours))))
    assert_no_secret("".join(traceback.format_exception(caught.value)))


def test_a_wrong_address_of_a_file_is_not_shown(server):
    entry = package(files=[])
    entry["packageFiles"] = [
        {
            "fileHandle": "weights.onnx",
            "downloadUrl": f"http://example.org/w?{SIGNATURE}",
            "md5Hash": "0" * 32,
        }
    ]
    server.adds("bad/1", entry)
    card = find("bad/1")

    assert "is no https:// address" in card.artifacts[0].needs["unsupported"]
    assert_no_secret(repr(card))


# What every provider promises


class TestRoboflow(WeightsProviderTests):
    provider = RoboflowProvider

    @pytest.fixture
    def model_id(self, server, plugin):
        return "ws/project/3"

    @pytest.fixture
    def key(self):
        return KEY

    @pytest.fixture
    def down(self, server, monkeypatch):
        monkeypatch.setenv("ROBOFLOW_API_HOST", "http://127.0.0.1:9")
