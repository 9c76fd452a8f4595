"""A publisher's files as a model: its card, or the weights that stand alone."""

from __future__ import annotations

import hashlib
import json

import attrs
import pytest

from inference_models import (
    Access,
    Artifact,
    Backend,
    Facts,
    File,
    HashMismatch,
    InvalidCard,
    InvalidOption,
    LicenseNotAllowed,
    ModelNotFound,
    TensorSpec,
    WeightsProvider,
)
from inference_models.providers.published import Published
from inference_models.testing import ToyArchitecture, plugged, toy_card
from inference_models.trust import Consent

CONTENT = b"bias"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SAID = toy_card(Artifact("toy", {"main": "a.onnx"}))


class Press(WeightsProvider):
    """Vouches for one model as it is told to."""

    name = "press"
    vouches = "publisher"

    def find(self, model_id, access):
        return None

    def origin(self, model_id, access):
        return self.vouches if model_id == "net" else "local"


class Toy(ToyArchitecture):
    @classmethod
    def claims(cls, facts):
        return toy_card(Artifact(facts.format, {}))


class ToyBackend(Backend):
    name = "toy"
    formats = ("toy",)

    def devices(self):
        return ["cpu"]

    def open(self, bundle, architecture, plan):
        return {}

    def inspect(self, path):
        known = path.read_bytes() == CONTENT
        return Facts("toy", {"bias": TensorSpec("float32", (3,))}) if known else None


@pytest.fixture(autouse=True)
def _plugins():
    with plugged(ToyBackend, Toy):
        yield


@pytest.fixture
def publish(tmp_path):
    """Lays files down with their md5, as a publisher would have them."""

    def lay(license_id=None, **contents):
        files = {}
        for key, content in contents.items():
            name = key.replace("__", "/").replace("_", ".")
            path = tmp_path / "press" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            md5 = hashlib.md5(content).hexdigest()
            files[name] = File(name, (path.as_uri(),), len(content), md5=md5)
        return Published("press://net", files, license_id)

    return lay


def card_of(published, name=None, **said):
    return published.card(Press(), "net", Access(**said), name)


def with_files(*files, **facts):
    artifact = Artifact("toy", {"main": "a.onnx"}, files, **facts)
    return json.dumps(attrs.evolve(SAID, artifacts=[artifact]).to_json()).encode()


def test_a_card_has_the_files_that_lie_beside_it(publish):
    published = publish(card_json=with_files(), a_onnx=CONTENT, b_onnx=CONTENT)
    card = card_of(published)

    assert card.artifacts[0].files == (published.files["a.onnx"],)


def test_what_a_card_calls_itself_is_not_believed(publish):
    said = json.loads(with_files()) | {"id": "resnet18", "aliases": ["rfdetr-base"]}
    card = card_of(publish(card_json=json.dumps(said).encode(), a_onnx=CONTENT))

    assert (card.id, card.aliases) == ("press://net", ())


def test_a_card_may_give_a_file_another_name_and_a_stronger_hash(publish):
    promised = File("a.onnx", ("b.onnx",), sha256=SHA256)
    published = publish(card_json=with_files(promised), b_onnx=CONTENT)
    (file,) = card_of(published).artifacts[0].files

    own = published.files["b.onnx"]
    assert file == attrs.evolve(own, name="a.onnx", sha256=SHA256)


@pytest.mark.parametrize(
    ("promised", "words"),
    [
        (File("a.onnx", ("https://host.example/a",)), "is no file beside the card"),
        (File("a.onnx", ("a.onnx", "file:///a")), "is no file beside the card"),
        (File("b.onnx"), "'b.onnx' comes from 'b.onnx', which is no file"),
        (File("a.onnx", size=7), "is another file than the card promises"),
        (File("a.onnx", md5="0" * 32), "is another file than the card promises"),
    ],
)
def test_a_card_of_other_files_is_refused(publish, promised, words):
    published = publish(card_json=with_files(promised), a_onnx=CONTENT)

    with pytest.raises(InvalidCard, match=f"the card.json of 'press://net': .*{words}"):
        card_of(published)


def test_a_card_of_another_sha256_than_the_publishers_is_refused(publish):
    promised = File("a.onnx", sha256="0" * 64)
    published = publish(card_json=with_files(promised), a_onnx=CONTENT)
    own = attrs.evolve(published.files["a.onnx"], sha256=SHA256)

    with pytest.raises(InvalidCard, match="is another file than the card promises"):
        card_of(attrs.evolve(published, files={**published.files, "a.onnx": own}))


def test_a_card_that_adapts_another_model_is_refused(publish):
    said = with_files(File("a.onnx"), base="file:///etc")

    with pytest.raises(InvalidCard, match="adapts no other model"):
        card_of(publish(card_json=said, a_onnx=CONTENT))


def test_a_card_that_is_too_large_is_not_fetched(publish):
    published = publish(card_json=with_files(), a_onnx=CONTENT)
    large = attrs.evolve(published.files["card.json"], size=1 << 30)

    with pytest.raises(InvalidCard, match="larger than 16000000 bytes"):
        card_of(attrs.evolve(published, files={"card.json": large}))


@pytest.mark.parametrize("name", [None, "sub/a.onnx"])
def test_weights_that_stand_alone_are_claimed(publish, name):
    card = card_of(publish("MIT", sub__a_onnx=CONTENT, read_me=b"#"), name)
    (file,) = card.artifacts[0].files

    assert (card.id, card.license) == ("press://net/sub/a.onnx", "MIT")
    assert (file.name, file.sha256) == ("a.onnx", SHA256)


def test_tensors_come_before_pickles_of_the_same_name(publish):
    card = card_of(publish(a_pth=b"pickle", a_onnx=CONTENT))

    assert card.id == "press://net/a.onnx"


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"a_onnx": b"", "b_pth": b""}, "name one, such as press://net/a.onnx"),
        ({"read_me": b"#"}, r"no weights .*\.onnx.*; it has 'read\.me'"),
        ({}, "it has no files"),
    ],
)
def test_what_does_not_tell_which_file_is_the_model_is_told(publish, contents, words):
    with pytest.raises(InvalidCard, match=words):
        card_of(publish(**contents))


def test_a_file_that_is_not_there_is_told_with_what_is_near(publish):
    with pytest.raises(ModelNotFound, match=r"no file 'b\.onnx'; did you mean 'a\.o"):
        card_of(publish(a_onnx=CONTENT), "b.onnx")


def test_a_pickle_that_nobody_vouches_for_is_not_fetched(publish, monkeypatch):
    monkeypatch.setattr(Press, "vouches", "unpinned")

    with pytest.raises(InvalidOption, match=r"'press://net' cannot be .* is a pickle"):
        card_of(publish(a_pth=CONTENT))


def test_a_licence_that_is_not_allowed_is_told_before_the_file_is_read(publish):
    published = publish("GPL-3.0", a_onnx=b"nothing that is read here")

    with pytest.raises(LicenseNotAllowed):
        card_of(published, consent=Consent(("MIT",)))


def test_a_file_is_held_to_the_users_hash(publish):
    published = publish(a_onnx=CONTENT)
    (file,) = card_of(published, sha256=SHA256).artifacts[0].files

    assert file.sha256 == SHA256
    with pytest.raises(HashMismatch, match=f"instead of {'0' * 64}"):
        card_of(published, sha256="0" * 64)


def test_another_hash_than_the_publishers_is_refused_at_once(publish):
    published = publish(a_onnx=CONTENT)
    own = attrs.evolve(published.files["a.onnx"], sha256=SHA256)

    with pytest.raises(HashMismatch, match="is another file than you trust"):
        card_of(attrs.evolve(published, files={"a.onnx": own}), sha256="0" * 64)
