"""Artifacts that are derived here: built once, judged, and kept only if they agree."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import json
import logging
import os
import re
import shutil
import sys
import time
from pathlib import Path

import attrs
import numpy as np
import pytest

from inference_models import (
    Artifact,
    AutoModel,
    DownloadFailed,
    File,
    InferenceModelsError,
    InvalidOption,
    InvalidWeights,
    NoBackend,
    RunFailed,
    Unavailable,
    registry,
)
from inference_models.card import structure
from inference_models.download import store
from inference_models.download.cache import inventory, verify
from inference_models.download.store import Store
from inference_models.negotiation import derive, derived_cache
from inference_models.negotiation.judging import tolerance

from .distributions import install

HERE = Path(__file__).parent
RED = np.full((9, 9, 3), (0, 0, 255), np.uint8)
load = AutoModel.from_pretrained


@pytest.fixture(scope="session")
def compiler_site(tmp_path_factory):
    """A folder in which the distribution acme-deriver is installed."""
    site = tmp_path_factory.mktemp("compiler")
    shutil.copy(HERE / "acme_deriver.py", site)
    install(site, "acme-deriver", {"acme-deriver": "acme_deriver"})
    return site


@pytest.fixture
def compiler(acme, compiler_site, monkeypatch):
    """The backend of acme-deriver, which is installed beside acme-vision."""
    monkeypatch.syspath_prepend(compiler_site)
    registry.refresh()
    import acme_deriver

    acme_deriver.derived.clear()
    return acme_deriver


def built(cache):
    return [path.name for path in cache.glob("derived/*/*")]


def partial(cache):
    return list(cache.glob("partial/*"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_by_default_the_next_best_runs_with_one_warning(compiler, caplog):
    model = load("acme-colors")
    (warning,) = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING
    ]

    assert model.backend == "acme"
    assert warning == (
        "acme-colors would run better on acme-compiled, cpu, which has to be built "
        "first: inference-models compile acme-colors --backend acme-compiled"
    )
    assert compiler.derived == []


def test_what_is_typed_to_build_it_says_what_was_named(compiler, caplog):
    load("acme-colors", device="cpu", quantization="fp32", batch_size=(1, 32))

    assert caplog.messages[0].endswith(
        "inference-models compile acme-colors --backend acme-compiled --device cpu "
        "--quantization fp32 --batch-size 1,32,32"
    )


@pytest.mark.parametrize("named", [{"derive": True}, {"backend": "acme-compiled"}])
def test_where_it_is_asked_for_it_is_built_first(compiler, cache, named, caplog):
    model = load("acme-colors", **named)

    assert model.backend == "acme-compiled"
    assert model(RED).class_id.tolist() == [0]
    assert sorted(built(cache)) == ["artifact.json", "compiled.json"]
    assert partial(cache) == []


def test_a_cache_that_cannot_be_used_is_told_with_what_to_set(
    compiler, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadFailed, match=r"cannot be used.*_MODELS_CACHE"):
        load("acme-colors", backend="acme-compiled")


def test_a_cache_that_is_only_read_is_told_with_what_to_set(
    compiler, cache, monkeypatch
):
    def refuse(path, *, exist_ok=False, **_):
        if not (exist_ok and path.is_dir()):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    (cache / "partial").mkdir(parents=True)
    # Not os's own, which Python 3.10's pathlib takes as it is imported.
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DownloadFailed, match=r"cannot be used.*_MODELS_CACHE"):
        load("acme-colors", backend="acme-compiled")


def test_beside_a_cache_that_is_another_users_a_local_model_runs(compiler, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "glob", refuse)

    assert load("acme-colors").backend == "acme"


def test_what_was_built_runs_without_asking_and_is_not_built_again(compiler, caplog):
    load("acme-colors", derive=True)
    model = load("acme-colors")

    assert model.backend == "acme-compiled"
    assert compiler.derived == ["acme-colors"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert model.explanation.best.reason == "derived, acme -> acme-compiled"


def test_what_the_author_of_a_pack_edits_is_built_anew(compiler, monkeypatch):
    load("acme-colors", derive=True)
    monkeypatch.setattr(derived_cache, "_code", lambda package: "edited")
    load("acme-colors", derive=True)

    assert compiler.derived == ["acme-colors", "acme-colors"]


@pytest.mark.parametrize("name", ["edited.py", "edited/__init__.py", "edited/a/b.py"])
def test_code_is_told_apart_by_every_source_of_a_package(tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent != tmp_path:
        (tmp_path / "edited" / "__init__.py").touch()
    path.write_text("gain = 1")
    monkeypatch.delitem(sys.modules, "edited", raising=False)
    importlib.invalidate_caches()
    importlib.import_module("edited")
    codes = []
    for gain in (1, 2, 1):
        path.write_text(f"gain = {gain}")
        derived_cache._code.cache_clear()
        codes.append(derived_cache._code("edited"))

    assert codes[0] == codes[2] != codes[1]


def test_a_graph_that_was_not_run_cannot_stand_for_its_source(
    compiler, acme, cache, monkeypatch
):
    outputs = {name: np.zeros((2, 3), np.float32) for name in ("means", "scaled")}
    monkeypatch.setattr(acme.Colors, "forward", lambda *_: dict(outputs))

    with pytest.raises(
        InvalidWeights, match=r"'main' cannot be compared .* `trial` of"
    ):
        load("acme-colors", backend="acme-compiled")
    assert built(cache) == []


def test_a_file_in_a_folder_that_an_architecture_reads_goes_along(
    compiler, acme, cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(acme.Colors, "reads", ("words/vocab.json",))
    folder = tmp_path / "model"
    (folder / "words").mkdir(parents=True)
    (folder / "words" / "vocab.json").write_text("{}")
    shutil.copy(acme.WEIGHTS, folder / "weights.json")
    names = ("weights.json", "words/vocab.json")
    artifact = Artifact("acme", {"main": names[0]}, [File(name) for name in names])
    card = attrs.evolve(acme.card(), artifacts=(artifact,))
    (folder / "card.json").write_text(json.dumps(card.to_json()))

    load(folder, backend="acme-compiled")

    assert [*cache.glob("derived/*/words/vocab.json")]


def test_explaining_builds_nothing(compiler):
    explanation = AutoModel.explain("acme-colors")

    assert [c.verdict for c in explanation.candidates] == ["buildable", "runs", "runs"]
    assert explanation.best.backend == "acme"
    assert compiler.derived == []


def test_a_file_of_weights_is_not_hashed_where_nothing_was_derived(
    compiler, tmp_path, monkeypatch
):
    path = tmp_path / "local.json"
    path.write_text('{"gain": [9, 9, 9]}', "utf-8")
    monkeypatch.setattr(store, "hash_file", lambda path: pytest.fail(f"hashed {path}"))

    assert AutoModel.explain(path).best.backend == "acme"


def test_what_differs_from_its_source_is_discarded(compiler, cache, monkeypatch):
    monkeypatch.setattr(compiler.AcmeCompiler, "error", 0.5)
    with pytest.raises(
        InvalidWeights, match="acme-compiled differs from its source by"
    ):
        load("acme-colors", backend="acme-compiled")

    assert built(cache) == ["artifact.json"]
    assert partial(cache) == []


def test_what_differs_falls_back_where_no_backend_was_named(
    compiler, monkeypatch, caplog
):
    monkeypatch.setattr(compiler.AcmeCompiler, "error", 0.5)
    model = load("acme-colors", derive=True)

    assert model.backend == "acme"
    assert "differs from its source" in caplog.text


@pytest.fixture
def found_wrong(compiler, monkeypatch, caplog):
    """Acme's compiler, after its file was built once and differed."""
    with monkeypatch.context() as patch:
        patch.setattr(compiler.AcmeCompiler, "error", 0.5)
        load("acme-colors", derive=True)
    caplog.clear()
    return compiler


def test_what_differed_is_not_built_at_every_load(found_wrong, caplog):
    models = [load("acme-colors", derive=True) for _ in range(2)]

    assert [model.backend for model in models] == ["acme", "acme"]
    assert found_wrong.derived == ["acme-colors"]
    assert not caplog.records


def test_what_differed_is_a_reason_for_who_names_it(found_wrong):
    with pytest.raises(InvalidWeights, match=r"^the derived .* builds it anew$"):
        load("acme-colors", backend="acme-compiled")
    told = AutoModel.explain("acme-colors").candidates
    (row,) = [row for row in told if row.backend == "acme-compiled"]

    assert row.verdict == "refused"
    assert "in fp32; it was discarded; inference-models compile acme" in row.reason


def test_what_differed_is_built_anew_where_it_is_asked_for(found_wrong):
    bundle = AutoModel.compile("acme-colors", backend="acme-compiled")
    model = load("acme-colors", backend="acme-compiled")

    assert model._loaded.bundle.folder == bundle.folder
    assert found_wrong.derived == ["acme-colors"] * 2


@pytest.mark.parametrize("right_first", [True, False])
def test_what_two_backends_open_is_judged_on_each(compiler, right_first):
    class Wrong(compiler.AcmeCompiler):
        name, derives = "acme-wrong", {}

        def open(self, bundle, *given):
            sessions = super().open(bundle, *given)
            for session in sessions.values():
                session.gain += 0.5
            return sessions

    if right_first:
        load("acme-colors", backend="acme-compiled")
    with pytest.raises(InvalidWeights, match="differs from its source"):
        load("acme-colors", backend=Wrong())

    assert load("acme-colors", backend="acme-compiled").backend == "acme-compiled"


def test_what_differed_for_other_batches_does_not_stand_in_the_way(found_wrong):
    wanted = {"backend": "acme-compiled", "batch_size": (1, 2, 4)}
    AutoModel.compile("acme-colors", **wanted)

    assert load("acme-colors").backend == "acme-compiled"


def test_what_differed_in_another_version_is_tried_in_this_one(
    found_wrong, monkeypatch
):
    monkeypatch.setattr(found_wrong.AcmeCompiler, "version", "2")

    assert load("acme-colors", derive=True).backend == "acme-compiled"


def test_what_differed_too_much_before_is_tried_where_more_is_allowed(
    found_wrong, monkeypatch
):
    cls = registry.installed().architecture("acme-colors")
    monkeypatch.setattr(cls, "tolerances", {"fp32": 1.0})

    assert load("acme-colors", derive=True).backend == "acme-compiled"


def test_what_was_kept_is_built_anew_where_less_is_allowed(compiler, monkeypatch):
    load("acme-colors", derive=True).close()
    cls = registry.installed().architecture("acme-colors")
    monkeypatch.setattr(cls, "tolerances", {"fp32": 1e-6})
    load("acme-colors", derive=True).close()

    assert compiler.derived == ["acme-colors"] * 2


def test_a_precision_that_no_tolerance_names_is_held_to_that_of_fp32(compiler):
    cls = registry.installed().architecture("acme-colors")

    assert tolerance(cls, "int4") == tolerance(cls, "fp32")


def test_the_cache_lists_and_verifies_what_differed(found_wrong, cache):
    (kept,) = [k for k in inventory(Store()) if k.kind == "derived"]

    assert (kept.model, kept.names) == ("acme-colors", ("artifact.json",))
    assert verify(Store()) == []


def test_what_was_loaded_last_comes_first_among_what_was_derived(compiler, cache):
    for precision in ("fp32", "fp16"):
        load("acme-colors", backend="acme-compiled", quantization=precision).close()
    for manifest in cache.glob("derived/*/artifact.json"):
        os.utime(manifest, (1, 1))
    model = load("acme-colors", backend="acme-compiled", quantization="fp16")
    first, last = [kept for kept in inventory(Store()) if kept.kind == "derived"]

    assert (first.form, last.form) == ("acme-compiled, fp16", "acme-compiled, fp32")
    assert first.folder == model._loaded.bundle.folder
    assert last.used == 1


def test_a_manifest_that_was_edited_is_not_believed(compiler, cache):
    load("acme-colors", backend="acme-compiled").close()
    (manifest,) = cache.glob("derived/*/artifact.json")
    text = manifest.read_text("utf-8")
    edited = text.replace('"needs": {"version": "1"}', '"needs": {}')
    manifest.write_text(edited, "utf-8")
    load("acme-colors", backend="acme-compiled").close()

    assert edited != text
    assert compiler.derived == ["acme-colors"] * 2
    assert manifest.read_text("utf-8") == text


def test_a_manifest_that_is_nested_too_deep_is_left_out(compiler, cache):
    load("acme-colors", backend="acme-compiled").close()
    (manifest,) = cache.glob("derived/*/artifact.json")
    key = json.loads(manifest.read_text("utf-8"))["key"]
    manifest.write_text(f'{{"key": "{key}", "card": ' + "[" * 100_000, "utf-8")
    load("acme-colors", backend="acme-compiled").close()

    assert compiler.derived == ["acme-colors"] * 2


def test_an_architecture_says_how_far_off_a_precision_may_be(compiler, monkeypatch):
    monkeypatch.setattr(compiler.AcmeCompiler, "error", 0.5)
    cls = registry.installed().architecture("acme-colors")
    monkeypatch.setattr(cls, "tolerances", {"fp32": 1.0})
    load("acme-colors", backend="acme-compiled").close()
    with pytest.raises(InvalidWeights, match="in fp16; it was discarded"):
        load("acme-colors", backend="acme-compiled", quantization="fp16")


def test_what_has_other_outputs_than_it_says_is_closed_and_discarded(
    compiler, cache, monkeypatch
):
    derive = compiler.AcmeCompiler.derive

    def misnaming(self, *given):
        return attrs.evolve(derive(self, *given), rename={"#9": "means"})

    monkeypatch.setattr(compiler.AcmeCompiler, "derive", misnaming)
    mine = compiler.AcmeCompiler()
    with pytest.raises(InvalidWeights, match="rename has '#9', and the graph has outp"):
        load("acme-colors", backend=mine)

    assert [session.closed for session in mine.sessions] == [True]
    assert built(cache) == []


def test_a_source_is_read_by_a_backend_of_its_format(compiler, monkeypatch):
    opened, read = compiler.AcmeCompiler.open, []

    def watched(self, bundle, *given):
        read.append(bundle.artifact.format)
        return opened(self, bundle, *given)

    monkeypatch.setattr(compiler.AcmeCompiler, "open", watched)
    load("acme-colors", backend="acme-compiled")

    assert set(read) == {"acme-compiled"}


def test_a_source_that_nothing_reads_on_the_cpu_is_told(compiler, acme, monkeypatch):
    monkeypatch.setattr(acme.AcmeBackend, "devices", lambda self: ["cuda:0"])
    monkeypatch.setattr(compiler.AcmeCompiler, "devices", lambda self: ["cpu"])
    with pytest.raises(Unavailable, match="nothing here runs acme on the CPU"):
        load("acme-colors", backend="acme-compiled")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scaled", lambda outputs: outputs.pop("scaled")),
        ("means", lambda outputs: outputs.update(means=outputs["means"][:, :1])),
    ],
    ids=["missing", "shape"],
)
def test_what_lacks_an_output_of_its_source_is_discarded(
    compiler, acme, cache, monkeypatch, name, change
):
    class Changed(acme.AcmeSession):
        def __call__(self, **inputs):
            outputs = super().__call__(**inputs)
            change(outputs)
            return outputs

    monkeypatch.setattr(
        compiler.AcmeCompiler,
        "open",
        lambda self, bundle, *given: {"main": Changed(bundle.path(), "float32", None)},
    )
    with pytest.raises(InvalidWeights, match=f"has no output '{name}' of shape"):
        load("acme-colors", backend="acme-compiled")

    assert built(cache) == []


def test_what_does_not_run_is_discarded(compiler, cache, monkeypatch):
    opened = compiler.AcmeCompiler.open

    def failing(self, bundle, *given):
        if bundle.artifact.format == "acme-compiled":
            raise RunFailed("a broken graph")
        return opened(self, bundle, *given)

    monkeypatch.setattr(compiler.AcmeCompiler, "open", failing)
    with pytest.raises(InvalidWeights, match="does not run: a broken graph; it was d"):
        load("acme-colors", backend="acme-compiled")

    assert built(cache) == partial(cache) == []


def test_a_build_that_fails_leaves_nothing_and_the_next_works(
    compiler, cache, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(compiler.AcmeCompiler, "error", float("inf"))
        with pytest.raises(
            NoBackend, match="acme-compiled on cpu: MemoryError: no room"
        ):
            load("acme-colors", backend="acme-compiled")
    assert built(cache) == partial(cache) == []

    assert load("acme-colors", backend="acme-compiled").backend == "acme-compiled"


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DownloadFailed, "there is no room in the cache"),
        (errno.ENOENT, NoBackend, r"cpu: FileNotFoundError: .*'acmec'"),
    ],
    ids=["full", "deriver's"],
)
def test_of_a_derivers_errors_no_room_alone_is_the_caches(
    compiler, monkeypatch, number, kind, words
):
    def failing(self, *given):
        raise OSError(number, os.strerror(number), "acmec")

    monkeypatch.setattr(compiler.AcmeCompiler, "derive", failing)
    with pytest.raises(kind, match=words):
        load("acme-colors", backend="acme-compiled")


def test_it_is_judged_by_the_next_where_a_stranger_fails_to_say_its_devices(
    compiler, acme, monkeypatch
):
    def devices(self):
        if self.name == "acme":
            raise OSError("a stranger's fault")
        return ["cpu"]

    monkeypatch.setattr(acme.AcmeBackend, "devices", devices)

    assert load("acme-colors", backend="acme-compiled").backend == "acme-compiled"


def test_other_weights_are_built_anew(compiler, acme, tmp_path):
    for name, gain in (("a", 9), ("b", 5)):
        path = tmp_path / f"{name}.json"
        path.write_text(f'{{"gain": [{gain}, {gain}, {gain}]}}')
        load(path, backend="acme-compiled")

    assert len(compiler.derived) == 2


@pytest.mark.parametrize(
    ("distribution", "points"),
    [
        ("acme-deriver", {"acme-deriver": "acme_deriver"}),
        ("acme-vision", {"acme": "acme_vision"}),
    ],
    ids=["backend", "architecture"],
)
def test_a_newer_plugin_derives_anew(
    compiler, tmp_path, monkeypatch, distribution, points
):
    load("acme-colors", backend="acme-compiled")
    newer = tmp_path / "newer"
    info = install(newer, distribution, points)
    metadata = (info / "METADATA").read_text("utf-8")
    (info / "METADATA").write_text(metadata.replace("1.0", "1.1"), "utf-8")
    monkeypatch.syspath_prepend(newer)
    registry.refresh()
    load("acme-colors", backend="acme-compiled")

    assert len(compiler.derived) == 2


@pytest.mark.parametrize("damage", ["missing", "shorter", "manifest", "link"])
def test_a_damaged_build_is_built_anew(compiler, cache, damage):
    load("acme-colors", backend="acme-compiled").close()
    (folder,) = cache.glob("derived/*")
    if damage == "missing":
        (folder / "compiled.json").unlink()
    elif damage == "shorter":
        (folder / "compiled.json").write_text("{}")
    elif damage == "manifest":
        (folder / "artifact.json").write_text("{")
    else:
        (folder / "artifact.json").write_text('{"artifact": {"format": 1}}')
    model = load("acme-colors", backend="acme-compiled")

    assert model(RED).class_id.tolist() == [0]
    assert len(compiler.derived) == 2
    assert sorted(built(cache)) == ["artifact.json", "compiled.json"]


def test_files_that_a_deriver_only_names_are_described(compiler, cache, monkeypatch):
    monkeypatch.setattr(compiler.AcmeCompiler, "describes", False)
    load("acme-colors", backend="acme-compiled").close()
    (path,) = cache.glob("derived/*/compiled.json")
    manifest = json.loads(path.with_name("artifact.json").read_text())
    (file,) = manifest["artifact"]["files"]

    assert file["size"] == path.stat().st_size
    assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_that_a_deriver_names_and_does_not_write_are_told(
    compiler, cache, monkeypatch
):
    def derive(self, source, architecture, plan, folder, report):
        return Artifact("acme-compiled", {"main": "gone.json"}, [File("gone.json")])

    monkeypatch.setattr(compiler.AcmeCompiler, "derive", derive)
    with pytest.raises(InvalidWeights, match=r"names 'gone\.json', which is not there"):
        load("acme-colors", backend="acme-compiled")

    assert built(cache) == []


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (None, "derive() of backend 'acme-compiled' returned None, no Artifact"),
        (
            Artifact("acme", {"main": "a.json"}),
            "wrote 'acme' in place of 'acme-compiled'",
        ),
        (
            Artifact("acme-compiled", {"main": "a.json"}),
            "names 'a.json' for a graph, and not among its files",
        ),
    ],
    ids=["nothing", "another format", "no file"],
)
def test_what_is_no_artifact_of_the_format_is_told(
    compiler, cache, monkeypatch, written, words
):
    monkeypatch.setattr(compiler.AcmeCompiler, "derive", lambda *_: written)
    with pytest.raises(InferenceModelsError, match=re.escape(words)):
        load("acme-colors", backend="acme-compiled")

    assert built(cache) == []


def test_a_damaged_build_is_told(compiler, cache):
    load("acme-colors", backend="acme-compiled").close()
    (folder,) = cache.glob("derived/*")
    (folder / "compiled.json").unlink()
    best = AutoModel.explain("acme-colors").candidates[0]

    assert best.verdict == "buildable"
    assert best.reason.endswith("; what was built is damaged")


@pytest.mark.parametrize("damage", [b"{", b""], ids=["flipped", "cut off"])
def test_native_code_that_is_not_what_was_written_is_built_anew(
    compiler, cache, monkeypatch, damage
):
    monkeypatch.setattr(compiler.AcmeCompiler, "file", "compiled.plan")
    load("acme-colors", backend="acme-compiled").close()
    (path,) = cache.glob("derived/*/compiled.plan")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + damage)
    model = load("acme-colors", backend="acme-compiled")

    assert model(RED).class_id.tolist() == [0]
    assert path.read_bytes() == content


def test_what_was_built_for_another_version_is_told_and_built_beside_it(
    compiler, cache, monkeypatch
):
    load("acme-colors", backend="acme-compiled").close()
    monkeypatch.setattr(compiler.AcmeCompiler, "version", "2")
    told = AutoModel.explain("acme-colors").candidates[0].reason
    load("acme-colors", backend="acme-compiled").close()
    monkeypatch.setattr(compiler.AcmeCompiler, "version", "1")
    load("acme-colors", backend="acme-compiled").close()

    assert "does not fit: compiled for version 1, and here is 2" in told
    assert len(compiler.derived) == len(list(cache.glob("derived/*"))) == 2


class Whole(str):
    """A version that is compared with versions alone."""

    __slots__ = ()

    def __ne__(self, other):
        return int(other) != int(self)

    __hash__ = str.__hash__


def test_needs_that_a_backend_cannot_read_are_told(compiler, cache, monkeypatch):
    load("acme-colors", backend="acme-compiled").close()
    (manifest,) = cache.glob("derived/*/artifact.json")
    data = json.loads(manifest.read_text("utf-8"))
    data["artifact"]["needs"] = {"version": {"major": 1}}
    manifest.write_text(json.dumps(data), "utf-8")
    artifact = structure(Artifact, data["artifact"])
    manifest.parent.rename(derived_cache.folder_of(Store(), data["key"], artifact))
    monkeypatch.setattr(compiler.AcmeCompiler, "version", Whole("1"))
    told = AutoModel.explain("acme-colors").candidates[0].reason

    assert "does not fit: refuse() failed: TypeError: " in told


def test_a_smaller_batch_than_was_built_for_is_not_built_anew(compiler):
    AutoModel.compile("acme-colors", backend="acme-compiled", batch_size=(1, 4, 8))
    models = [load("acme-colors"), load("acme-colors", batch_size=8)]

    assert [model.backend for model in models] == ["acme-compiled"] * 2
    assert len(compiler.derived) == 1


def test_a_larger_batch_than_was_built_for_is_told_and_built_beside_it(compiler):
    AutoModel.compile("acme-colors", backend="acme-compiled", batch_size=(1, 4, 8))
    best = AutoModel.explain("acme-colors", batch_size=16).candidates[0]
    load("acme-colors", backend="acme-compiled", batch_size=16)

    assert best.reason.endswith("what was built is for batches of (1, 4, 8)")
    assert len(compiler.derived) == 2


def test_compiling_for_other_batches_builds_for_them_though_others_cover_them(compiler):
    wide = {"backend": "acme-compiled", "batch_size": (1, 4, 8)}
    narrow = {"backend": "acme-compiled", "batch_size": (1, 2, 2)}
    bundles = [AutoModel.compile("acme-colors", **each) for each in (wide, narrow)]
    again = [AutoModel.compile("acme-colors", **each) for each in (wide, narrow)]

    assert [b.artifact.batch for b in bundles] == [(1, 4, 8), (1, 2, 2)]
    assert [b.folder for b in again] == [b.folder for b in bundles]
    assert len(compiler.derived) == 2


@pytest.mark.parametrize("last", [(1, 4, 8), (1, 2, 2)])
def test_what_was_compiled_last_is_loaded(compiler, last):
    for sizes in ((1, 4, 8), (1, 2, 2), last):
        AutoModel.compile("acme-colors", backend="acme-compiled", batch_size=sizes)

    assert load("acme-colors").batch_size == last[1]


def test_what_was_built_for_the_batches_that_are_wanted_is_loaded(compiler):
    for sizes in (2, 8):
        AutoModel.compile("acme-colors", backend="acme-compiled", batch_size=sizes)

    model = load("acme-colors", batch_size=2)

    assert model._loaded.bundle.artifact.batch == (1, 2, 2)


def folder_of(tmp_path, preprocessing, content=b'{"gain": [9, 9, 9]}'):
    """A folder with weights and a card that states their hash."""
    (tmp_path / "weights.json").write_bytes(content)
    file = {"name": "weights.json", "sha256": hashlib.sha256(content).hexdigest()}
    card = {
        "id": "mine",
        "architecture": "acme-colors",
        "task": "classification",
        "labels": ["red", "green", "blue"],
        "config": {"preprocessing": preprocessing},
        "artifacts": [
            {"format": "acme", "graphs": {"main": "weights.json"}, "files": [file]}
        ],
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    return tmp_path


def test_what_was_built_does_without_its_source(compiler, tmp_path):
    folder = folder_of(tmp_path, {"size": [8, 8]})
    load(folder, backend="acme-compiled")
    (folder / "weights.json").unlink()

    assert load(folder, backend="acme-compiled")(RED).class_id.tolist() == [0]
    assert len(compiler.derived) == 1


@pytest.fixture
def no_deriver(compiler, monkeypatch):
    """Once called, nobody is here who derives; what was derived can be opened."""
    return lambda: monkeypatch.setattr(compiler.AcmeCompiler, "derives", {})


def test_what_was_built_runs_where_nobody_is_who_could_build_it(no_deriver, tmp_path):
    folder = folder_of(tmp_path, {"size": [8, 8]})
    load(folder, backend="acme-compiled")
    (folder / "weights.json").unlink()
    no_deriver()
    model = load(folder)

    assert model.backend == "acme-compiled"
    assert model(RED).class_id.tolist() == [0]
    assert AutoModel.explain(folder).best.backend == "acme-compiled"


def test_what_was_built_has_the_labels_of_the_call_where_nobody_could_build_it(
    no_deriver, tmp_path
):
    folder = folder_of(tmp_path, {"size": [8, 8]})
    load(folder, backend="acme-compiled")
    no_deriver()
    model = load(folder, backend="acme-compiled", labels=["r", "g", "b"])

    assert model.class_names == ["r", "g", "b"]


@pytest.mark.parametrize(
    "other",
    [({"size": [4, 4]},), ({"size": [8, 8]}, b'{"gain": [9, 9, 8]}')],
    ids=["preprocessing", "weights"],
)
def test_what_was_built_of_another_source_is_left_alone(no_deriver, tmp_path, other):
    folder = folder_of(tmp_path, {"size": [8, 8]})
    load(folder, backend="acme-compiled")
    no_deriver()
    folder_of(tmp_path, *other)

    assert load(folder).backend == "acme"


def test_what_differed_is_left_alone_where_nobody_could_build_it(
    found_wrong, no_deriver, caplog
):
    no_deriver()

    assert load("acme-colors").backend == "acme"
    assert caplog.messages == []


def test_what_was_built_elsewhere_is_not_run_where_its_source_cannot_be(
    no_deriver, compiler, monkeypatch
):
    monkeypatch.setattr(compiler.AcmeCompiler, "targets", lambda self: ["far-away"])
    AutoModel.compile("acme-colors", backend="acme-compiled", device="far-away")
    no_deriver()

    assert load("acme-colors").backend == "acme"


def test_labels_of_ones_own_do_not_build_anew(compiler, tmp_path):
    folder = folder_of(tmp_path, {"size": [8, 8]})
    load(folder, backend="acme-compiled")
    model = load(folder, backend="acme-compiled", labels=["r", "g", "b"])

    assert model.class_names == ["r", "g", "b"]
    assert len(compiler.derived) == 1


def test_another_preprocessing_is_built_anew(compiler, tmp_path):
    for size in ([8, 8], [16, 16]):
        load(folder_of(tmp_path, {"size": size}), backend="acme-compiled")

    assert len(compiler.derived) == 2


@pytest.mark.parametrize(("asked", "written"), [(None, "fp32"), ("fp16", "fp16")])
def test_what_is_derived_is_written_in_the_precision_asked_for(
    compiler, asked, written
):
    model = load("acme-colors", backend="acme-compiled", quantization=asked)

    assert model.precision == model._loaded.bundle.artifact.precision == written


def test_precisions_are_built_apart(compiler):
    for precision in ("fp32", "fp16", "fp32"):
        load("acme-colors", backend="acme-compiled", quantization=precision)

    assert compiler.derived == ["acme-colors", "acme-colors"]


def test_a_precision_that_nothing_is_written_in_is_refused(compiler):
    with pytest.raises(NoBackend, match="offers fp32, fp16 for acme-compiled, not bf1"):
        load("acme-colors", backend="acme-compiled", quantization="bf16")


@pytest.mark.parametrize(("error", "kept"), [(0.1, True), (0.5, False)])
def test_half_precision_may_differ_more(compiler, monkeypatch, error, kept):
    monkeypatch.setattr(compiler.AcmeCompiler, "error", error)
    with pytest.raises(InvalidWeights, match=r"in fp32; it was discarded"):
        load("acme-colors", backend="acme-compiled")
    with contextlib.nullcontext() if kept else pytest.raises(InvalidWeights):
        load("acme-colors", backend="acme-compiled", quantization="fp16")


def test_compiling_builds_once_and_says_where_it_lies(compiler, cache):
    bundles = [
        AutoModel.compile("acme-colors", backend="acme-compiled") for _ in range(2)
    ]

    assert bundles[0] == bundles[1]
    assert bundles[0].folder.parent == cache / "derived"
    assert bundles[0].path().name == "compiled.json"
    assert compiler.derived == ["acme-colors"]


@pytest.mark.parametrize(
    ("given", "sizes"),
    [(None, [(384, 384), (320, 480)]), ([RED, RED], [(9, 9), (9, 9)])],
    ids=["photographs", "given"],
)
def test_compiling_judges_on_pictures_that_are_given_or_on_photographs(
    compiler, monkeypatch, given, sizes
):
    judged = []
    cls = registry.installed().architecture("acme-colors")
    original = cls.preprocess

    def preprocess(self, images, *rest):
        judged.append([(image.height, image.width) for image in images])
        return original(self, images, *rest)

    monkeypatch.setattr(cls, "preprocess", preprocess)
    AutoModel.compile("acme-colors", backend="acme-compiled", calibration=given)

    assert judged == [sizes, sizes]


def test_what_is_compared_gets_images_in_the_type_that_its_graph_takes(
    compiler, acme, tmp_path, monkeypatch
):
    shutil.copy(acme.WEIGHTS, tmp_path / "gain.json")
    half = {"format": "acme", "graphs": {"main": "gain.json"}}
    facts = {"artifacts": [half], "config": {"dtype": "float16"}}
    (tmp_path / "card.json").write_text(json.dumps(acme.card().to_json() | facts))
    given, call = [], acme.AcmeSession.__call__

    def watched(self, **inputs):
        given.append(str(inputs["pixels"].dtype))
        return call(self, **inputs)

    monkeypatch.setattr(acme.AcmeSession, "__call__", watched)
    AutoModel.compile(tmp_path, backend="acme-compiled")

    assert given == ["float16", "float16"]


def test_half_precision_that_is_too_far_off_falls_back_to_full(
    compiler, monkeypatch, caplog
):
    monkeypatch.setattr(compiler.AcmeCompiler, "devices", lambda self: ["cuda:0"])
    monkeypatch.setattr(compiler.AcmeCompiler, "half_error", 0.5)
    bundle = AutoModel.compile("acme-colors", backend="acme-compiled")

    assert bundle.artifact.precision == "fp32"
    assert "acme-colors is built in fp32, because fp16: the derived" in caplog.text


def test_where_one_precision_differs_and_the_other_does_not_run_both_are_wrong(
    compiler, monkeypatch
):
    opened = compiler.AcmeCompiler.open

    def failing(self, bundle, architecture, plan):
        if plan.precision == "fp32" and bundle.artifact.format == "acme-compiled":
            raise RunFailed("a broken graph")
        return opened(self, bundle, architecture, plan)

    monkeypatch.setattr(compiler.AcmeCompiler, "devices", lambda self: ["cuda:0"])
    monkeypatch.setattr(compiler.AcmeCompiler, "half_error", 0.5)
    monkeypatch.setattr(compiler.AcmeCompiler, "open", failing)
    with pytest.raises(InvalidWeights, match="does not run: a broken graph"):
        AutoModel.compile("acme-colors", backend="acme-compiled")


def test_what_differs_is_not_built_for_the_next_device_again(compiler, monkeypatch):
    devices = ["cuda:0", "cuda:1"]
    monkeypatch.setattr(compiler.AcmeCompiler, "devices", lambda self: devices)
    monkeypatch.setattr(compiler.AcmeCompiler, "half_error", 0.5)
    model = load("acme-colors", backend="acme-compiled")

    assert (model.device, model.precision) == ("cuda:0", "fp32")
    assert compiler.derived == ["acme-colors"] * 2


def test_a_precision_that_was_named_does_not_fall_back(compiler, monkeypatch):
    monkeypatch.setattr(compiler.AcmeCompiler, "devices", lambda self: ["cuda:0"])
    monkeypatch.setattr(compiler.AcmeCompiler, "half_error", 0.5)
    with pytest.raises(InvalidWeights, match="differs from its source"):
        AutoModel.compile("acme-colors", backend="acme-compiled", quantization="fp16")


def test_a_precision_that_was_named_fails_alike_at_every_load(compiler, monkeypatch):
    monkeypatch.setattr(compiler.AcmeCompiler, "half_error", 0.5)
    for _ in range(2):
        with pytest.raises(InvalidWeights, match="in fp16; it was discarded") as caught:
            load("acme-colors", quantization="fp16")

    assert compiler.derived == ["acme-colors"]
    assert "--backend acme-compiled --quantization fp16 builds" in str(caught.value)


def test_what_is_built_for_elsewhere_is_judged_there(compiler, cache, monkeypatch):
    monkeypatch.setattr(
        compiler.AcmeCompiler, "targets", lambda self: ["cpu", "far-away"]
    )
    monkeypatch.setattr(compiler.AcmeCompiler, "error", 0.5)
    AutoModel.compile(
        "acme-colors", backend="acme-compiled", device="far-away", quantization="fp32"
    )
    (folder,) = cache.glob("derived/*")
    with pytest.raises(InvalidWeights, match="differs from its source"):
        load("acme-colors", backend="acme-compiled")

    assert [path.name for path in folder.iterdir()] == ["artifact.json"]
    assert compiler.derived == ["acme-colors"]


def test_what_is_right_and_built_elsewhere_is_judged_once(compiler, monkeypatch):
    monkeypatch.setattr(
        compiler.AcmeCompiler, "targets", lambda self: ["cpu", "far-away"]
    )
    AutoModel.compile(
        "acme-colors", backend="acme-compiled", device="far-away", quantization="fp32"
    )
    judged = []
    monkeypatch.setattr(
        "inference_models.negotiation.derive.judge", lambda *given: judged.append(given)
    )
    models = [load("acme-colors") for _ in range(2)]

    assert [model.backend for model in models] == ["acme-compiled"] * 2
    assert len(judged) == len(compiler.derived) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (0.0, contextlib.nullcontext()),
        (0.5, pytest.raises(InvalidWeights, match="differs")),
    ],
    ids=["right", "wrong"],
)
def test_what_was_built_elsewhere_is_judged_where_the_cache_is_only_read(
    error, outcome, compiler, monkeypatch
):
    monkeypatch.setattr(
        compiler.AcmeCompiler, "targets", lambda self: ["cpu", "far-away"]
    )
    monkeypatch.setattr(compiler.AcmeCompiler, "error", error)
    AutoModel.compile(
        "acme-colors", backend="acme-compiled", device="far-away", quantization="fp32"
    )

    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(derived_cache, "write_atomically", refuse)
    with outcome:
        model = load("acme-colors", backend="acme-compiled")

        assert model(RED).class_id.tolist() == [0]


def test_what_was_built_elsewhere_is_judged_by_one_process_at_a_time(
    compiler, monkeypatch
):
    monkeypatch.setattr(
        compiler.AcmeCompiler, "targets", lambda self: ["cpu", "far-away"]
    )
    AutoModel.compile(
        "acme-colors", backend="acme-compiled", device="far-away", quantization="fp32"
    )
    told, locked = [], Store.locked

    @contextlib.contextmanager
    def watched(self, name):
        with locked(self, name):
            told.append("locked")
            yield
        told.append("free")

    monkeypatch.setattr(Store, "locked", watched)
    monkeypatch.setattr(derive, "judge", lambda *given: told.append("judged"))
    load("acme-colors", backend="acme-compiled")

    assert told[told.index("judged") - 1 :] == ["locked", "judged", "free"]


def test_a_machine_that_cannot_run_it_builds_it_without_judging(compiler, monkeypatch):
    def devices(self):
        raise Unavailable("there is no GPU here")

    monkeypatch.setattr(compiler.AcmeCompiler, "targets", lambda self: ["far-away"])
    monkeypatch.setattr(compiler.AcmeCompiler, "devices", devices)
    monkeypatch.setattr(derive, "judge", lambda *given: pytest.fail("judged"))
    bundle = AutoModel.compile(
        "acme-colors", backend="acme-compiled", device="far-away", quantization="fp32"
    )

    assert bundle.artifact.format == "acme-compiled"


def test_a_device_elsewhere_is_only_built_for(compiler, monkeypatch):
    monkeypatch.setattr(
        compiler.AcmeCompiler, "targets", lambda self: ["cpu", "far-away"]
    )
    with pytest.raises(NoBackend, match="offers cpu here, not far-away"):
        load("acme-colors", backend="acme-compiled", device="far-away")


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (["cpu", "near"], "builds for cpu, near, not far-away"),
        (["Far Away"], r"targets\(\) gave 'Far Away', which is no device's name"),
        ([], "builds for no device, not far-away"),
    ],
)
def test_a_device_that_cannot_be_built_for_is_told(
    compiler, monkeypatch, targets, told
):
    monkeypatch.setattr(compiler.AcmeCompiler, "targets", lambda self: targets)
    with pytest.raises(NoBackend, match=rf"nothing here can build [^:]*:\n.*{told}"):
        AutoModel.compile("acme-colors", backend="acme-compiled", device="far-away")


def test_what_is_written_and_would_not_be_opened_is_not_kept(
    compiler, cache, monkeypatch
):
    monkeypatch.setattr(compiler.AcmeCompiler, "written", "9")
    with pytest.raises(InvalidWeights, match="cannot run: compiled for version 9"):
        AutoModel.compile("acme-colors", backend="acme-compiled")

    assert built(cache) == partial(cache) == []


def test_what_is_ready_needs_no_compiling(compiler):
    with pytest.raises(InvalidOption, match="needs nothing built for 'acme'"):
        AutoModel.compile("acme-colors", backend="acme")


def test_what_a_killed_build_left_is_removed_by_the_next(compiler, cache):
    first = {"backend": "acme-compiled", "batch_size": 1}
    bundle = AutoModel.compile("acme-colors", **first)
    key = json.loads((bundle.folder / "artifact.json").read_text("utf-8"))["key"]
    old, new = (cache / "partial" / f"{key}.{name}" for name in ("old", "new"))
    for folder in (old, new):
        (folder / "0").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    AutoModel.compile("acme-colors", backend="acme-compiled", batch_size=(1, 2, 3))

    assert not old.exists()
    assert new.exists()


def test_pictures_that_are_given_judge_what_was_built_before(
    compiler, monkeypatch, cache
):
    AutoModel.compile("acme-colors", backend="acme-compiled")
    cls = registry.installed().architecture("acme-colors")
    monkeypatch.setattr(cls, "difference", lambda self, expected, found: 0.5)
    with pytest.raises(InvalidWeights, match="differs from its source by"):
        AutoModel.compile("acme-colors", backend="acme-compiled", calibration=[RED])

    assert list(cache.glob("derived/*/compiled.json")) == []
