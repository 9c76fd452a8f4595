"""Models of the Hub, from the id to predictions: what is kept, fails, and is told."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import traceback

import numpy as np
import pytest
from core.tests import faulty_server as faulty
from core.tests.faulty_server import FaultyServer

from inference_models import (
    Access,
    AutoModel,
    DownloadFailed,
    Forbidden,
    HashMismatch,
    InferenceModelsError,
    ModelNotFound,
    Offline,
    RateLimited,
    Unauthorized,
    Unreachable,
    store,
)
from inference_models.download.ask import Terms
from inference_models.download.limits import Limits
from inference_models.testing import WeightsProviderTests
from inference_models_hf import hub_api
from inference_models_hf.hub import HubProvider

from .hub_server import (
    SIGNATURE,
    TOKEN,
    hang_up,
    refuse,
    says,
    sha256,
)
from .tiny_pack import weights

RED = np.full((9, 12, 3), (0, 0, 255), np.uint8)
WEIGHTS = weights(9, 9, 9)
DARK = weights(0, 9, 9)
CONFIG = json.dumps({"model_type": "tiny"}).encode()
FOLDER = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "vocab.txt": b"a b"}
EXPIRED = "Invalid credentials in Authorization header"


@pytest.fixture(autouse=True)
def _plugin(tiny):
    """The plugin that reads these files."""


@pytest.fixture
def model(hub):
    """A repository of one folder; the id of its commit."""
    return hub.adds("org/name", FOLDER)


def load(model_id="hf://org/name", **parameters):
    return AutoModel.from_pretrained(model_id, **parameters)


def find(model_id="org/name", **facts):
    return HubProvider().find(model_id, Access(**facts))


def red(loaded):
    return float(loaded(RED).confidence[0]["red"])


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# As huggingface_hub sees it


def test_huggingface_hub_reads_this_servers_answers(hub, model):
    from huggingface_hub import HfApi

    hub.repositories["org/name"].facts |= {"gated": "auto"}
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    found = api.model_info("org/name", revision=model, files_metadata=True)
    files = {sibling.rfilename: sibling for sibling in found.siblings}

    assert (found.sha, found.gated, found.private) == (model, "auto", False)
    assert files["model.safetensors"].lfs.sha256 == sha256(WEIGHTS)
    assert files["config.json"].lfs is None
    assert (files["config.json"].size, len(files["config.json"].blob_id)) == (22, 40)


@pytest.mark.parametrize("name", FOLDER)
def test_huggingface_hub_downloads_from_this_server(hub, model, name, tmp_path):
    from huggingface_hub import hf_hub_download

    where = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "hf"}
    path = hf_hub_download("org/name", name, **where)

    assert open(path, "rb").read() == FOLDER[name]  # noqa: PTH123, SIM115 - one line


def test_what_huggingface_hub_takes_is_refused_here(hub, model, tmp_path):
    from huggingface_hub import hf_hub_download

    other = weights(1, 2, 3)
    hub.damage["model.safetensors"] = other
    where = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "hf"}
    path = hf_hub_download("org/name", "model.safetensors", **where)
    with pytest.raises(HashMismatch, match=r"'model\.safetensors' has sha256"):
        load()

    assert open(path, "rb").read() == other  # noqa: PTH123, SIM115 - one line


@pytest.mark.parametrize(
    ("repo", "revision", "code"),
    [("org/none", None, "RepoNotFound"), ("org/name", "v9", "RevisionNotFound")],
)
def test_huggingface_hub_knows_what_is_refused(hub, model, repo, revision, code):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    kinds = {"RepoNotFound": RepositoryNotFoundError}
    with pytest.raises(kinds.get(code, RevisionNotFoundError)):
        HfApi(endpoint=hub.endpoint, token=False).model_info(repo, revision=revision)
    with pytest.raises(ModelNotFound):
        find(repo, revision=revision)


# From the id to predictions


@pytest.mark.parametrize("model_id", ["org/name", "hf://org/name", "org/name@main"])
def test_a_model_loads_and_runs(model, model_id):
    assert red(load(model_id)) > 0.9


def test_a_model_gives_what_its_folder_gives(hub, tmp_path):
    named = {"model_type": "tiny", "files": ["config.json", "model.safetensors"]}
    folder = {"config.json": json.dumps(named).encode(), "model.safetensors": WEIGHTS}
    hub.adds("org/name", folder)
    for name, content in folder.items():
        (tmp_path / name).write_bytes(content)
    expected = load(tmp_path)(RED).confidence

    assert np.array_equal(load()(RED).confidence, expected)


@pytest.mark.parametrize("model_id", ["tiny", "a/b/c", "./org/name", "é/b"])
def test_what_is_no_id_of_the_hub_is_not_asked(hub, model_id):
    assert find(model_id) is None
    assert hub.requests == []


def test_importing_the_plugin_imports_nothing_of_its_libraries():
    code = (
        "import sys, inference_models_hf as plugin; plugin.weights_providers();"
        "names = {name.partition('.')[0] for name in sys.modules};"
        "print(names & {'huggingface_hub', 'httpx', 'torch', 'transformers'})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "set()"


def test_a_renamed_repository_loads_by_its_old_id(hub, model):
    hub.repositories["org/new"] = hub.repositories["org/name"]
    hub.moved["org/name"] = "org/new"

    assert red(load()) > 0.9


# Versions


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, model):
    known = hub.repositories["org/name"]
    known.commit(FOLDER | {"model.safetensors": DARK})
    known.branches["v1"] = model

    assert red(load()) < 0.5
    assert red(load(revision="v1")) > 0.9
    assert red(load(f"hf://org/name@{model}")) > 0.9


def test_what_was_loaded_stays_when_the_branch_moves(hub, model, monkeypatch):
    load()
    load(revision=model)
    hub.repositories["org/name"].commit(FOLDER | {"model.safetensors": DARK})
    hub.requests.clear()
    monkeypatch.setenv("INFERENCE_MODELS_OFFLINE", "1")

    assert red(load()) > 0.9
    assert red(load(revision=model)) > 0.9
    monkeypatch.delenv("INFERENCE_MODELS_OFFLINE")
    assert red(load()) < 0.5
    assert red(load(revision=model)) > 0.9


def test_a_branch_that_moves_while_a_model_is_loaded_changes_no_file(hub, model):
    known = hub.repositories["org/name"]
    card = find()
    known.commit(FOLDER | {"model.safetensors": DARK})
    sources = [file.sources[0] for file in card.artifacts[0].files]

    assert all(f"@{model}/" in source for source in sources)
    assert all(
        f"/resolve/{model}/" in HubProvider().request(source, Access())[0]
        for source in sources
    )


@pytest.mark.parametrize(
    ("model_id", "facts", "origin"),
    [
        ("org/name", {}, "unpinned"),
        ("org/name@main", {}, "unpinned"),
        ("org/name", {"revision": "v1"}, "unpinned"),
        ("org/name", {"revision": "0" * 40}, "publisher"),
        ("org/name@" + "0" * 40, {}, "publisher"),
        ("org/name/w.pth", {"sha256": "0" * 64}, "pinned"),
    ],
)
def test_the_hub_vouches_for_full_commits_alone(model_id, facts, origin):
    assert HubProvider().origin(model_id, Access(**facts)) == origin


# What is kept


def test_what_is_in_the_cache_is_not_fetched_again(hub, model):
    load()
    hub.requests.clear()
    load()

    assert hub.asked("/resolve/") + hub.asked("/cdn/") == []


@pytest.mark.parametrize("switch", ["INFERENCE_MODELS_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("model_id", ["hf://org/name", "org/name/model.safetensors"])
def test_offline_a_model_of_the_cache_loads_without_a_word(
    hub, model, monkeypatch, caplog, switch, model_id
):
    load(model_id)
    hub.requests.clear()
    monkeypatch.setenv(switch, "1")

    assert red(load(model_id)) > 0.9
    assert (hub.requests, warnings_of(caplog)) == ([], [])


def test_offline_a_file_that_is_missing_is_named(hub, model, monkeypatch):
    find()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="HF_HUB_OFFLINE is set"):
        load()


def test_offline_another_file_than_is_trusted_is_not_there(hub, model, monkeypatch):
    load("hf://org/name/model.safetensors", sha256=sha256(WEIGHTS))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert load("hf://org/name/model.safetensors", sha256=sha256(WEIGHTS))
    with pytest.raises(Offline):
        load("hf://org/name/model.safetensors", sha256=sha256(DARK))


def test_what_a_file_is_said_to_be_is_remembered_apart(hub, model, monkeypatch):
    load("hf://org/name/model.safetensors", model_type="tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline):
        load("hf://org/name/model.safetensors")


def test_a_file_that_is_said_to_be_of_a_type_is_carried(
    hub, model, monkeypatch, tmp_path
):
    pytest.importorskip("typer")
    from inference_models.cli import cache, download

    file = "hf://org/name/model.safetensors"
    download.command([file], model_type="tiny")
    cache.export(tmp_path / "model.tar", [file], "tiny")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache.import_(tmp_path / "model.tar")

    assert load(file, model_type="tiny")
    with pytest.raises(Offline):
        load(file)


OUTAGES = {
    "500": says(500),
    "503": says(503),
    "429": says(429),
    "401": lambda h: refuse(h, 401, None, EXPIRED),
    "403": lambda h: refuse(h, 403, None, "No"),
    "hang up": hang_up,
    "page": says(200, b"<html>log in to this network</html>"),
    "no repository": says(200, {"sha": "0" * 40}),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_costs_one_warning_and_one_request(hub, model, caplog, name):
    load(api_key=TOKEN)
    hub.requests.clear()
    hub.faults = [OUTAGES[name]] * 9

    assert red(load(api_key=TOKEN)) > 0.9
    assert len(hub.requests) == 1
    (warning,) = warnings_of(caplog)
    assert "org/name is loaded as it was known before" in warning


def test_what_the_hub_says_of_the_model_stands(hub, model):
    load()
    del hub.repositories["org/name"]
    with pytest.raises(ModelNotFound):
        load()


def test_what_a_token_may_see_is_not_remembered_for_others(hub, monkeypatch):
    hub.adds("org/name", FOLDER, private=True)
    load(api_key=TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert red(load(api_key=TOKEN)) > 0.9
    for key in (None, "hf_another"):
        with pytest.raises(Offline):
            load(api_key=key)


def test_what_anybody_may_see_is_remembered_for_all(hub, model, monkeypatch):
    load(api_key=TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert red(load()) > 0.9
    assert red(load(api_key="hf_another")) > 0.9


def test_what_another_endpoint_says_is_not_remembered(hub, model, monkeypatch):
    load()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    with pytest.raises(Offline):
        load()


# Who may read it


def test_a_private_model_needs_its_token(hub):
    hub.adds("org/name", FOLDER, private=True)
    with pytest.raises(ModelNotFound, match="if it is private, set HF_TOKEN"):
        load()

    assert red(load(api_key=TOKEN)) > 0.9


def test_a_key_without_a_named_provider_is_not_for_the_hub(hub):
    hub.adds("org/name", FOLDER, private=True)
    with pytest.raises(ModelNotFound):
        load("org/name", api_key=TOKEN)

    assert all("Authorization" not in headers for _, headers in hub.requests)


@pytest.mark.parametrize("key", [None, TOKEN])
@pytest.mark.parametrize("model_id", ["hf://org/name", "hf://org/name/vocab/w.onnx"])
def test_a_gated_model_says_where_its_terms_are(hub, model_id, key):
    hub.adds("org/name", FOLDER | {"vocab/w.onnx": WEIGHTS}, gated="manual")
    with pytest.raises(Forbidden, match=f"accept them at {hub.endpoint}/org/name, and"):
        load(model_id, api_key=key)


def test_a_gated_model_loads_once_its_terms_are_accepted(hub):
    hub.adds("org/name", FOLDER, gated="auto")
    hub.accepted.add("org/name")

    assert red(load(api_key=TOKEN)) > 0.9


def test_a_wrong_token_is_said_to_be_wrong(hub, model):
    with pytest.raises(Unauthorized, match="refused the token"):
        load(api_key="hf_wrong")


def test_the_token_does_not_leave_the_endpoint(hub, model):
    with FaultyServer() as cdn:
        path = f"/{sha256(WEIGHTS)}/model.safetensors"
        hub.cdn = cdn.gives(path, faulty.whole(WEIGHTS)).removesuffix(path)
        load(api_key=TOKEN)
        (asked,) = cdn.requests

    assert "authorization" not in asked.headers
    sent = [headers.get("Authorization") for _, headers in hub.requests]
    assert sent == [f"Bearer {TOKEN}"] * len(hub.requests)


# A network that fails


LIMITS = Limits(connect=0.3, idle=0.3, tries=3, pause=0.0, longest_pause=0.0)
LARGE = WEIGHTS * 50_000
HALF = len(LARGE) // 2


@pytest.fixture
def cdn(hub):
    """Where the weights of the model lie, which are large."""
    with FaultyServer() as running:
        hub.cdn = running.url("")
        hub.adds("org/name", FOLDER | {"model.safetensors": LARGE})
        yield running


def fetched():
    """The weights, fetched as a model's are."""
    access = Access(TOKEN)
    card = HubProvider().find("org/name", access)

    def request(source):
        return HubProvider().request(source, access)

    folder = store.Store(limits=LIMITS).folder(card.artifacts[0], request)
    return (folder / "model.safetensors").read_bytes()


def answers(cdn, *given):
    cdn.gives(f"/{sha256(LARGE)}/model.safetensors", *given)


GOOD = faulty.ranged(LARGE)
PASSES = {
    "redirected": [GOOD],
    "503 of the CDN": [faulty.status("503 No"), GOOD],
    "429 of the CDN": [faulty.status("429 No", Retry_After=1), GOOD],
    "stall": [faulty.stops(LARGE, HALF, faulty.stall), GOOD],
    "reset": [faulty.stops(LARGE, HALF, faulty.reset), GOOD],
    "cut and resumed": [faulty.stops(LARGE, HALF, faulty.hang_up), GOOD],
    "another version": [
        faulty.stops(LARGE, HALF, faulty.hang_up),
        faulty.ranged(LARGE, etag='"v2"'),
    ],
}
FAILS = {
    "gone": ([faulty.status("404 Gone")], DownloadFailed, "404"),
    "expired": ([faulty.status("403 Expired")], Forbidden, "403"),
    "for ever": ([faulty.status("503 No")], Unreachable, "503"),
    "too many": ([faulty.status("429 No")], RateLimited, "429"),
    "one bit": ([faulty.whole(LARGE[:-1] + b"x")], HashMismatch, "instead of"),
    "short": ([faulty.whole(LARGE[:99])], HashMismatch, "has 99 bytes instead"),
    "page": (
        [faulty.whole(b"<html>log in</html>", Content_Type="text/html")],
        HashMismatch,
        "has 19 bytes instead",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_second_try_makes_up_for_what_passes(cdn, name):
    answers(cdn, *PASSES[name])

    assert fetched() == LARGE
    assert all("authorization" not in asked.headers for asked in cdn.requests)


@pytest.mark.parametrize("name", FAILS)
def test_what_does_not_pass_is_an_error_and_nothing_is_kept(cdn, name, tmp_path):
    given, error, words = FAILS[name]
    answers(cdn, *given)
    with pytest.raises(error, match=words) as caught:
        fetched()

    assert type(caught.value) is error
    assert SIGNATURE not in str(caught.value)
    kept = [path.read_bytes() for path in (tmp_path / "cache/blobs").iterdir()]
    assert sorted(kept) == sorted([CONFIG, FOLDER["vocab.txt"]])
    answers(cdn, GOOD)
    assert fetched() == LARGE


@pytest.mark.parametrize("name", FAILS)
def test_what_is_here_needs_no_cdn(cdn, name):
    answers(cdn, GOOD)
    fetched()
    cdn.requests.clear()
    answers(cdn, *FAILS[name][0])

    assert fetched() == LARGE
    assert cdn.requests == []


@pytest.mark.parametrize(
    "fault", [says(500), says(503), says(429), says(429, Retry_After=1), hang_up]
)
def test_each_try_asks_the_hub_for_the_address_anew(hub, cdn, fault):
    answers(cdn, GOOD)
    find()
    hub.requests.clear()
    hub.file_faults = [fault] * 2

    assert fetched() == LARGE
    assert len(hub.asked("/resolve/")) == 4  # two of them are for vocab.txt


# What is not told


def locals_of_ours(error):
    """What the frames of these packages hold, of an error and of what caused it."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain = [told]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    frames = [frame for each in chain for frame in each.stack]
    ours = [frame for frame in frames if "/inference_models" in frame.filename]
    assert ours
    return "".join(repr(frame.locals) for frame in ours)


def written_below(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = "\n".join(map(str, folder.rglob("*"))).encode()
    return names + b"\n".join(path.read_bytes() for path in files)


def test_neither_token_nor_signature_is_kept_or_told(hub, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hub.adds("org/name", FOLDER, private=True)
    access = Access(TOKEN, headers={"X-Token": TOKEN})
    loaded = load(api_key=TOKEN, weights_provider_extra_headers={"X-Token": TOKEN})
    shown = [repr(loaded), str(loaded.explanation), repr(loaded.card), caplog.text]
    shown += [
        repr(access),
        repr(HubProvider()),
        repr(loaded._loaded),
        *capfd.readouterr(),
    ]
    dumped = pickle.dumps(loaded) + pickle.dumps(access)
    kept = (dumped + written_below(tmp_path / "cache")).decode("latin-1")

    for secret in (TOKEN, SIGNATURE, "signed-and-secret"):
        assert secret not in "".join(shown)
        assert secret not in kept


def never_answers(handler):
    handler.server.never.wait(30)


API_FAULTS = {
    "time-out": never_answers,
    "401": lambda h: refuse(h, 401, None, EXPIRED),
    "404": lambda h: refuse(h, 404, "RepoNotFound", "No"),
    "gated": lambda h: refuse(h, 403, "GatedRepo", "No"),
    "503": says(503),
    "broken": hang_up,
    "nonsense": says(200, b"{"),
    "another commit": says(200, {"sha": "0" * 40}),
}


@pytest.mark.parametrize("name", API_FAULTS)
def test_no_error_of_the_api_shows_the_token(hub, caplog, monkeypatch, name):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_api, "TERMS", Terms(total=0.3, tries=2))
    hub.faults = [API_FAULTS[name]] * 9
    with pytest.raises(InferenceModelsError) as caught:
        load()

    assert TOKEN not in str(caught.value) + repr(caught.value) + caplog.text
    assert TOKEN not in locals_of_ours(caught.value)


FILE_FAULTS = {
    "401": lambda h: refuse(h, 401, None, EXPIRED),
    "403": lambda h: refuse(h, 403, "GatedRepo", "No"),
    "404": lambda h: refuse(h, 404, "EntryNotFound", "No"),
    "encoded": says(200, b"x", Content_Encoding="gzip"),
    "other bytes": says(200, b"x"),
    "refused redirect": says(302, Location="http://169.254.169.254/"),
    "private redirect": says(302, Location="https://10.0.0.1/"),
}


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_no_error_of_a_file_shows_the_token(hub, model, caplog, monkeypatch, name):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.file_faults = [FILE_FAULTS[name]] * 9
    with pytest.raises(InferenceModelsError) as caught:
        load()

    assert TOKEN not in str(caught.value) + repr(caught.value) + caplog.text
    assert TOKEN not in locals_of_ours(caught.value)


def test_no_time_out_shows_the_token(cdn):
    answers(cdn, faulty.stops(LARGE, HALF, faulty.stall))
    with pytest.raises(Unreachable) as caught:
        fetched()

    assert TOKEN not in locals_of_ours(caught.value)


# What every provider promises


class TestHub(WeightsProviderTests):
    provider = HubProvider

    @pytest.fixture
    def model_id(self, model):
        return "org/name"

    @pytest.fixture
    def key(self):
        return TOKEN

    @pytest.fixture
    def down(self, model, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
