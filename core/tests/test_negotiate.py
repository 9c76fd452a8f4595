"""Negotiation: every plan in one order, and a sentence for each that is out."""

from __future__ import annotations

import itertools

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_models import (
    Artifact,
    InvalidOption,
    ModelCard,
    NoBackend,
    Unavailable,
)
from inference_models.negotiation.constraints import Constraints
from inference_models.negotiation.explain import Explanation
from inference_models.negotiation.hints import advice, install_hint
from inference_models.negotiation.negotiate import negotiate
from inference_models.negotiation.options import Cached
from inference_models.negotiation.routes import chain
from inference_models.registry import SetAside, build
from inference_models.testing import plugged

from .fakes import backend, plugin


def raising(error):
    def method(self, *_):
        raise error

    return method


def giving(value):
    return lambda self, *_: value


def on(*devices):
    return giving(list(devices))


def artifact(form="onnx", **fields):
    return Artifact(form, {"main": f"model.{form}"}, **fields)


def card(*artifacts):
    return ModelCard("acme", "net", "classification", artifacts or (artifact(),))


def registry(*classes):
    return build([plugin("acme", *classes)])


def constraints(backend=None, device=None, precision=None, batch=None, derive=None):
    return Constraints.read(backend, device, precision, batch, derive)


def negotiated(classes, *artifacts, built=(), **named):
    return negotiate(
        card(*artifacts),
        constraints(**named),
        registry(*classes),
        lambda option: Cached(option.backend.name in built),
    )


def plans(negotiation):
    return [
        (option.backend.name, option.plan.device, option.plan.precision)
        for option in negotiation.options
    ]


def names(negotiation):
    return [option.backend.name for option in negotiation.options]


def reasons(negotiation):
    return {candidate.backend: candidate.reason for candidate in negotiation.refusals}


TRT = backend("trt", aliases=("tensorrt",), formats=("onnx",), rank=400)
TORCH = backend("torch", aliases=("pytorch",), formats=("onnx",), rank=300)
ONNX = backend("onnx", formats=("onnx",), rank=100)
GPU = backend("gpu", formats=("onnx",), rank=1, devices=on("cuda:0", "cuda:1", "cpu"))


# The order


def test_backends_come_by_rank():
    assert names(negotiated([ONNX, TRT, TORCH])) == ["trt", "torch", "onnx"]


def test_backends_of_one_rank_come_by_name():
    found = [backend(name, formats=("onnx",)) for name in "cab"]

    assert names(negotiated(found)) == ["a", "b", "c"]


def test_an_accelerator_comes_before_the_cpu_whatever_the_rank():
    assert plans(negotiated([GPU, TRT])) == [
        ("gpu", "cuda:0", "fp32"),
        ("gpu", "cuda:1", "fp32"),
        ("trt", "cpu", "fp32"),
        ("gpu", "cpu", "fp32"),
    ]


def test_devices_come_by_number():
    many = on(*[f"cuda:{number}" for number in (10, 2, 0)])

    found = negotiated([backend("gpu", formats=("onnx",), devices=many)])
    assert [option.plan.device for option in found.options] == [
        "cuda:0",
        "cuda:2",
        "cuda:10",
    ]


def test_a_backend_that_the_environment_names_first_comes_first(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "onnx, pytorch")
    found = negotiated([ONNX, TRT, TORCH])

    assert names(found) == ["onnx", "torch"]
    assert reasons(found) == {
        "trt": "left out by INFERENCE_MODELS_BACKENDS=onnx, pytorch"
    }


def test_a_backend_that_the_environment_names_twice_keeps_its_first_place(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "onnx torch onnx")

    assert names(negotiated([ONNX, TORCH])) == ["onnx", "torch"]


def test_one_warning_says_what_the_environment_misspells(monkeypatch, caplog):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "acme-v3, onnx, tensorrt")

    assert names(negotiated([backend("acme-v2"), ONNX])) == ["onnx"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "INFERENCE_MODELS_BACKENDS names no backend 'acme-v3'; did you mean 'acme-v2'?"
    )


def test_what_is_not_installed_here_may_be_in_the_environment(monkeypatch, caplog):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "trt, pytorch, onnx")

    assert names(negotiated([backend("tr"), ONNX])) == ["onnx"]
    assert not caplog.records


def test_a_backend_that_the_user_names_is_asked_whatever_the_environment(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "onnx")

    assert names(negotiated([ONNX, TORCH], backend="torch")) == ["torch"]


def test_of_those_that_the_user_names_those_of_the_environment_come_first(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "onnx")
    found = negotiated([ONNX, TRT, TORCH], backend=["torch", "trt", "onnx"])

    assert names(found) == ["onnx", "trt", "torch"]


def test_a_backends_own_order_of_precisions_decides_between_its_artifacts():
    half = backend(
        "a",
        formats=("onnx",),
        precisions=giving(("fp16", "fp32")),
        refuse=lambda self, card, artifact, plan: (
            None if plan.precision == artifact.precision else "as it is"
        ),
    )
    found = negotiated([half], artifact(), artifact(precision="fp16"))

    assert [option.plan.precision for option in found.options] == ["fp16", "fp32"]


@pytest.mark.parametrize(("device", "first"), [("cpu", "fp32"), ("cuda:0", "fp16")])
def test_a_cpu_takes_the_artifact_of_full_precision_wherever_the_card_has_it(
    device, first
):
    found = negotiated(
        [backend("a", formats=("onnx",), devices=on(device))],
        artifact(precision="fp16"),
        artifact(precision="fp32"),
    )

    assert found.options[0].plan.precision == first


@pytest.mark.parametrize(
    ("batch", "first"),
    [
        (None, (8, 8, 8)),
        (8, (8, 8, 8)),
        (1, (1, 4, 4)),
        ((1, 4, 16), (1, 4, 4)),
        (16, None),
    ],
)
def test_an_artifact_whose_batch_fits_comes_first(batch, first):
    artifacts = [artifact(batch=size) for size in ((8, 8, 8), (1, 4, 4), None)]
    found = negotiated([ONNX], *artifacts, batch=batch)

    assert found.options[0].artifact.batch == first


def test_artifacts_otherwise_come_in_the_cards_order():
    found = negotiated([ONNX], artifact(base="first"), artifact(base="second"))

    assert [option.artifact.base for option in found.options] == ["first", "second"]


POOL = [
    backend(
        name,
        formats=formats,
        rank=rank,
        devices=on(*devices),
        precisions=giving(precisions),
    )
    for (name, formats), rank, devices, precisions in zip(
        [("a", ("x",)), ("b", ("x", "y")), ("c", ("y",)), ("d", ("x",)), ("e", ("z",))],
        [5, 5, 9, 5, 1],
        [["cuda:0", "cpu"], ["cpu"], ["cuda:1", "cuda:0"], ["cpu"], ["cpu"]],
        [("fp16", "fp32"), ("fp32",), ("fp32",), ("fp32",), ("fp32",)],
        strict=True,
    )
]
ARTIFACTS = [artifact("x"), artifact("y", batch=(4, 4, 4)), artifact("y")]


@given(st.permutations(POOL), st.sampled_from([None, 1, 4]))
def test_the_order_is_total(classes, batch):
    expected = negotiated(POOL, *ARTIFACTS, batch=batch)
    found = negotiated(classes, *ARTIFACTS, batch=batch)

    assert found.candidates == expected.candidates


# What is named


@pytest.mark.parametrize("name", ["tensorrt", "trt", "TRT"])
def test_a_named_backend_answers_to_its_aliases_alone(name):
    found = negotiated([ONNX, TRT, TORCH], backend=name)

    assert names(found) == ["trt"]
    assert reasons(found) == dict.fromkeys(
        ("onnx", "torch"), "another backend was asked for"
    )


def test_several_backends_may_be_named():
    assert names(negotiated([ONNX, TRT, TORCH], backend=["onnx", "pytorch"])) == [
        "torch",
        "onnx",
    ]


def test_a_backend_that_is_named_twice_is_tried_once():
    assert names(negotiated([TORCH], backend=["torch", "pytorch"])) == ["torch"]


def test_a_backend_may_be_given_with_its_settings():
    mine = ONNX()
    found = negotiated([ONNX, TRT], backend=mine)

    assert [option.backend for option in found.options] == [mine]


def test_backends_that_are_given_come_in_the_same_order():
    b, a = (backend(name, formats=("onnx",))() for name in "ba")

    assert names(negotiated([], backend=[b, a])) == ["a", "b"]


def test_a_backend_that_is_given_need_not_be_installed():
    mine = backend("mine", formats=("onnx",))()

    assert names(negotiated([ONNX], backend=mine)) == ["mine"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("onxx", "offers backend 'onxx'; installed: onnx, trt; did you mean 'onnx'"),
        ("pytorch", "offers backend 'pytorch'; pip install inference-models-torch"),
        ("zzz", "offers backend 'zzz'; installed: onnx, trt$"),
    ],
)
def test_an_unknown_backend_is_refused_with_what_to_type(name, words):
    with pytest.raises(NoBackend, match=words):
        negotiated([ONNX, TRT], backend=name)


def test_a_named_device_is_the_only_one():
    found = negotiated([ONNX, GPU], device="cuda:1")

    assert plans(found) == [("gpu", "cuda:1", "fp32")]
    assert reasons(found) == {"onnx": "offers cpu here, not cuda:1"}


def test_a_kind_of_device_means_its_first():
    assert plans(negotiated([GPU], device="cuda")) == [("gpu", "cuda:0", "fp32")]


def test_a_device_of_which_there_is_one_may_have_torchs_number():
    (option,) = negotiated([ONNX], device="cpu:0").options

    assert option.plan.device == "cpu"


def test_a_named_accelerator_never_becomes_the_cpu():
    found = negotiated([ONNX, TRT], device="cuda")

    assert not found.options
    assert reasons(found)["trt"] == "offers cpu here, not cuda"


def test_mps_is_used_only_when_named():
    apple = backend("apple", formats=("onnx",), devices=on("mps", "cpu"))

    assert plans(negotiated([apple])) == [("apple", "cpu", "fp32")]
    assert plans(negotiated([apple], device="mps")) == [("apple", "mps", "fp32")]


def test_a_backend_of_mps_alone_says_how_to_use_it():
    apple = backend("apple", formats=("onnx",), devices=on("mps"))

    assert reasons(negotiated([apple])) == {
        "apple": "offers mps here; name it to use it: device='mps'"
    }


HALF = backend("half", formats=("onnx",), precisions=giving(("fp16", "fp32")))


def test_a_named_precision_is_the_only_one():
    found = negotiated([HALF, ONNX], precision="fp16")

    assert plans(found) == [("half", "cpu", "fp16")]
    assert reasons(found) == {"onnx": "offers fp32 for onnx, not fp16"}


def test_a_named_precision_is_not_replaced_where_it_is_refused():
    picky = backend(
        "picky",
        formats=("onnx",),
        precisions=giving(("fp16", "fp32")),
        refuse=lambda self, card, artifact, plan: (
            "no halves here" if plan.precision == "fp16" else None
        ),
    )

    assert plans(negotiated([picky])) == [("picky", "cpu", "fp32")]
    assert reasons(negotiated([picky], precision="fp16")) == {"picky": "no halves here"}


def test_int8_never_runs_unasked():
    small = artifact(precision="int8")
    unasked = negotiated([ONNX], small, artifact())

    assert plans(unasked) == [("onnx", "cpu", "fp32")]
    assert reasons(unasked) == {
        "onnx": "offers int8 for onnx; ask for it to use it: quantization='int8'"
    }
    assert plans(negotiated([ONNX], small, precision="int8")) == [
        ("onnx", "cpu", "int8")
    ]


def test_a_backend_may_have_precisions_of_its_own():
    packed = backend("packed", formats=("onnx",), own_precisions=("q4",))
    with plugged(packed):
        found = negotiated([packed, ONNX], artifact(precision="q4"), precision="Q4")
        with pytest.raises(InvalidOption, match=r"not one of .* 'int8', 'q4'$"):
            constraints(precision="q5")

    assert ("packed", "cpu", "q4") in plans(found)
    assert constraints(backend=packed(), precision="q4").precision == "q4"
    with pytest.raises(InvalidOption, match=r"not one of .* 'int8'$"):
        constraints(precision="q4")


def test_an_artifacts_own_batch_stands_over_the_one_asked_for():
    found = negotiated([ONNX], artifact(batch=(8, 8, 8)), batch=2)

    assert found.options[0].plan.batch == (8, 8, 8)


def test_a_batch_asked_for_is_planned_where_the_artifact_takes_any():
    assert negotiated([ONNX], batch=(1, 4)).options[0].plan.batch == (1, 4, 4)


# Refusals


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (
            {"devices": raising(Unavailable("no runtime; type this"))},
            "no runtime; type this",
        ),
        ({"devices": raising(OSError("lost"))}, "devices() failed: OSError: lost"),
        ({"devices": giving(None)}, "devices() failed: TypeError: "),
        ({"devices": on()}, "offers no device here"),
        ({"devices": on("GPU.0")}, "devices() gave 'GPU.0', which is no device's name"),
        ({"devices": on(0)}, "devices() failed: TypeError: "),
        ({"formats": ("plan", "engine")}, "needs plan/engine; the card has onnx"),
        ({"precisions": giving(())}, "offers no precision for onnx"),
        ({"precisions": raising(KeyError("x"))}, "precisions() failed: KeyError: 'x'"),
        ({"refuse": giving("opset 99 is too new")}, "opset 99 is too new"),
        (
            {"refuse": giving(False)},
            "refuse() failed: TypeError: it returned False, and not a sentence or None",
        ),
        ({"refuse": raising(ValueError("odd"))}, "refuse() failed: ValueError: odd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_refusal_is_a_sentence_and_stops_no_other(attributes, reason):
    bad = backend("bad", **{"formats": ("onnx",), "rank": 999} | attributes)
    found = negotiated([bad, ONNX])

    assert names(found) == ["onnx"]
    assert reasons(found)["bad"].startswith(reason)


def test_a_refusal_says_what_was_refused():
    picky = backend("picky", formats=("onnx",), refuse=giving("too new"))
    (refusal,) = negotiated([picky], batch=3).refusals

    assert refusal.verdict == "refused"
    assert (refusal.format, refusal.device, refusal.batch) == ("onnx", "cpu", (1, 3, 3))


def test_refuse_sees_the_card_the_artifact_and_the_plan():
    seen = []
    looking = backend(
        "looking",
        formats=("onnx",),
        refuse=lambda self, card, artifact, plan: seen.append((card, artifact, plan)),
    )
    (option,) = negotiated([looking], device="cpu").options

    assert seen == [(card(), artifact(), option.plan)]


# Derivation


EXPORTER = backend("exporter", formats=("torch",), rank=300, derives={"torch": "onnx"})
BUILDER = backend("builder", formats=("trt",), rank=400, derives={"onnx": "trt"})


def steps(found):
    return [(deriver.name, form) for deriver, form in found]


def test_a_chain_leads_to_a_format_in_the_fewest_steps():
    shortcut = backend("shortcut", formats=("torch",), derives={"torch": "trt"})
    made = [cls() for cls in (EXPORTER, BUILDER, ONNX)]

    assert steps(chain("torch", ("trt",), made)) == [
        ("exporter", "onnx"),
        ("builder", "trt"),
    ]
    assert steps(chain("torch", ("trt",), [*made, shortcut()])) == [("shortcut", "trt")]


def test_a_chain_does_not_depend_on_the_order_of_backends():
    rivals = [
        backend(name, formats=("torch",), rank=rank, derives={"torch": "onnx"})()
        for name, rank in (("b", 1), ("a", 1), ("c", 2))
    ]
    for order in itertools.permutations(rivals):
        assert steps(chain("torch", ("onnx",), list(order))) == [("c", "onnx")]


def test_a_chain_asks_nobody_who_writes_nothing_on_it():
    asked = backend(
        "asked",
        formats=("onnx",),
        derives={"onnx": "trt"},
        targets=lambda self: pytest.fail("asked for its targets"),
    )
    made = [cls() for cls in (EXPORTER, asked)]

    assert steps(chain("torch", ("onnx",), made)) == [("exporter", "onnx")]
    assert chain("torch", ("hf",), made) == ()


def test_a_chain_ends_where_formats_lead_in_circles():
    circle = [
        backend("a", formats=("x",), derives={"x": "y"})(),
        backend("b", formats=("y",), derives={"y": "x"})(),
        backend("c", formats=("y",), derives={"y": "z"})(),
    ]

    assert chain("w", ("z",), circle) == ()


@pytest.mark.parametrize(("form", "written"), [("torch", ["fp16"]), ("onnx", [])])
def test_a_precision_is_written_where_any_step_converts(form, written):
    keeping = backend(
        "keeping",
        formats=("trt",),
        derives={"onnx": "trt"},
        converts=False,
        precisions=giving(("fp16", "fp32")),
    )
    found = negotiated([EXPORTER, keeping], artifact(form), precision="fp16")

    assert [o.plan.precision for o in found.options if o.steps] == written


PICKY = backend(
    "picky",
    formats=("onnx",),
    precisions=lambda self, artifact, device: [artifact.precision],
    refuse=lambda self, card, artifact, plan: artifact.needs.get("gpu"),
)


def test_what_is_ready_is_not_derived_from_another():
    found = negotiated([PICKY, EXPORTER], artifact(), artifact("torch"))
    mine = [option for option in found.options if option.backend.name == "picky"]

    assert [option.steps for option in mine] == [()]


def test_where_all_that_is_ready_is_refused_another_is_derived():
    foreign = artifact(needs={"gpu": "it is for another GPU"})
    found = negotiated([PICKY, EXPORTER], foreign, artifact("torch"), device="cpu")
    (mine,) = [option for option in found.options if option.backend.name == "picky"]

    assert [form for _, form in mine.steps] == ["onnx"]
    assert reasons(found)["picky"] == "it is for another GPU"


def test_a_precision_that_nothing_ready_has_is_derived():
    found = negotiated(
        [PICKY, EXPORTER], artifact(), artifact("torch"), precision="fp16"
    )
    (mine,) = [option for option in found.options if option.backend.name == "picky"]

    assert mine.plan.precision == "fp16"
    assert [form for _, form in mine.steps] == ["onnx"]


def test_what_was_built_and_differs_is_out_with_its_reason():
    found = negotiate(
        card(artifact("torch")),
        constraints(),
        registry(PICKY, EXPORTER),
        lambda option: Cached(fault="it differs"),
    )

    assert "picky" not in names(found)
    assert reasons(found)["picky"] == (
        "it differs; inference-models compile acme --backend picky builds it anew"
    )


def test_a_backend_that_cannot_run_here_derives_nothing():
    absent = backend(
        "absent",
        formats=("torch",),
        derives={"torch": "onnx"},
        devices=raising(Unavailable("torch is not installed")),
    )

    assert chain("torch", ("onnx",), [absent()]) == ()


def test_what_must_first_be_built_is_listed_in_its_place_and_tried_last():
    found = negotiated([BUILDER, ONNX], artifact("onnx"))

    assert [c.verdict for c in found.candidates] == ["buildable", "runs"]
    assert found.candidates[0].reason == "can be derived, onnx -> trt"
    assert found.candidates[0].format == "trt"
    assert [option.backend.name for option in found.order] == ["onnx", "builder"]


def test_what_is_built_already_takes_part_like_any_other():
    found = negotiated([BUILDER, ONNX], artifact("onnx"), built=["builder"])

    assert [c.verdict for c in found.candidates] == ["runs", "runs"]
    assert found.candidates[0].reason == "derived, onnx -> trt"
    assert [option.backend.name for option in found.order] == ["builder", "onnx"]


@pytest.mark.parametrize("named", [{"derive": True}, {"backend": ["builder", "onnx"]}])
def test_asking_for_it_builds_first(named):
    found = negotiated([BUILDER, ONNX], artifact("onnx"), **named)

    assert [option.backend.name for option in found.order] == ["builder", "onnx"]


def test_the_environment_may_ask_for_it(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_DERIVE", "always")
    found = negotiated([BUILDER, ONNX], artifact("onnx"))

    assert found.order[0].backend.name == "builder"


def test_the_user_may_ask_not_to(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_DERIVE", "always")
    found = negotiated([BUILDER, ONNX], artifact("onnx"), derive=False)

    assert found.order[0].backend.name == "onnx"


def test_where_the_user_wants_nothing_built_what_would_be_is_refused():
    found = negotiated([BUILDER], artifact("onnx"), derive=False)

    assert not found.options
    assert reasons(found) == {
        "builder": "can be derived, onnx -> trt, and derive=False keeps it from being "
        "built"
    }


def test_where_the_user_wants_nothing_built_what_was_built_before_runs():
    found = negotiated([BUILDER], artifact("onnx"), built=["builder"], derive=False)

    assert [option.backend.name for option in found.order] == ["builder"]


def test_a_deriver_that_lacks_a_library_says_so_where_it_would_be_needed():
    lacking = backend(
        "exporter",
        formats=("torch",),
        derives={"torch": "onnx"},
        lacks=lambda self, form: f"writing {form} needs pens; pip install pens",
    )
    found = negotiated([lacking, ONNX], artifact("torch"), backend="onnx")

    assert not found.options
    assert reasons(found)["onnx"] == (
        "needs onnx; the card has torch; writing onnx needs pens; pip install pens"
    )


@pytest.mark.parametrize("asked", ["devices", "precisions"])
def test_one_text_in_place_of_a_list_is_told(asked):
    odd = backend("odd", formats=("onnx",), **{asked: lambda *_: "cpu"})
    found = negotiated([odd], artifact("onnx"))

    assert reasons(found) == {
        "odd": f"{asked}() failed: TypeError: 'cpu' is no list of names"
    }


def test_a_deriver_that_cannot_say_what_it_lacks_is_told():
    broken = backend(
        "exporter",
        formats=("torch",),
        derives={"torch": "onnx"},
        lacks=raising(ValueError("oops")),
    )
    found = negotiated([broken, ONNX], artifact("torch"), backend="onnx")

    assert reasons(found)["onnx"].endswith(
        "lacks() of 'exporter' failed: ValueError: oops"
    )


def test_a_setting_that_is_not_always_is_told(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_DERIVE", " Always ")
    assert constraints().derive

    monkeypatch.setenv("INFERENCE_MODELS_DERIVE", "1")
    with pytest.raises(InvalidOption, match="INFERENCE_MODELS_DERIVE '1' is not 'al"):
        constraints()


def test_nothing_is_derived_where_an_artifact_is_ready():
    found = negotiated([EXPORTER, ONNX], artifact("torch"), artifact("onnx"))

    assert [(o.backend.name, o.steps) for o in found.options] == [
        ("exporter", ()),
        ("onnx", ()),
    ]


def test_a_derived_artifact_is_asked_about_in_its_new_format():
    asked = []
    reader = backend(
        "reader",
        formats=("onnx",),
        precisions=lambda self, artifact, device: asked.append(artifact) or ("fp32",),
    )
    negotiated([EXPORTER, reader], artifact("torch", batch=(8, 8, 8), needs={"x": 1}))

    assert {(a.format, a.batch, tuple(a.needs)) for a in asked} == {("onnx", None, ())}


# Constraints


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"backend": 3}, "backend 3 is neither a name, such as 'onnx', nor a Backend"),
        ({"backend": [None]}, "backend None is neither"),
        ({"backend": []}, r"backend \[\] names none; leave it out"),
        ({"device": "my gpu"}, "device 'my gpu' is not a name such as 'cpu'"),
        ({"device": "cuda:x"}, "device 'cuda:x' is not a name"),
        ({"precision": "fp8"}, "quantization 'fp8' is not one of 'fp32', 'fp16'"),
        ({"batch": 0}, "batch_size 0 is not a number above 0"),
        ({"batch": np.int64(0)}, "is not a number above 0"),
        ({"batch": 1.5}, "batch_size 1.5"),
        ({"batch": True}, "batch_size True"),
        ({"batch": "8"}, "batch_size '8'"),
        ({"batch": np.True_}, r"batch_size (np\.)?True_? is not"),
        ({"batch": (8, "9")}, "batch_size"),
        ({"batch": (4, 1)}, r"batch_size \(4, 1\)"),
        ({"batch": (1, 2, 3, 4)}, "batch_size"),
        ({"batch": ()}, "batch_size"),
    ],
)
def test_an_impossible_constraint_is_refused(named, words):
    with pytest.raises(InvalidOption, match=words):
        constraints(**named)


def test_an_impossible_constraint_is_a_type_error():
    with pytest.raises(TypeError):
        constraints(device="my gpu")


@pytest.mark.parametrize(
    ("given_batch", "read"),
    [
        (8, (1, 8, 8)),
        ((2, 8), (2, 8, 8)),
        ([1, 4, 8], (1, 4, 8)),
        (np.int64(8), (1, 8, 8)),
        (None, None),
    ],
)
def test_a_batch_size_is_a_number_or_a_range(given_batch, read):
    assert constraints(batch=given_batch).batch == read


# What is shown


TABLE = """\
acme: classification, net
    backend  device  precision  format  verdict
    builder  cpu     fp32       trt     buildable: can be derived, onnx -> trt
->  onnx     cpu     fp32       onnx    runs
    picky    cpu     -          onnx    refused: too new
"""


def test_an_explanation_is_a_table():
    picky = backend("picky", formats=("onnx",), rank=9, refuse=giving("too new"))
    classes = registry(ONNX, BUILDER, picky)
    mine = card(artifact("onnx"))
    found = negotiate(mine, constraints(), classes, lambda option: Cached())

    assert f"{Explanation.of(mine, found, classes)}\n" == TABLE


def test_an_explanation_is_data():
    classes = registry(ONNX, TORCH)
    found = negotiate(card(), constraints(), classes, lambda option: Cached())
    explanation = Explanation.of(card(), found, classes)

    assert explanation.best == explanation.candidates[0]
    assert (explanation.best.backend, explanation.best.verdict) == ("torch", "runs")


def test_an_explanation_of_nothing_says_so():
    classes = registry(backend("other", formats=("x",)))
    found = negotiate(card(), constraints(), classes, lambda option: Cached())
    explanation = Explanation.of(card(), found, classes)

    assert explanation.best is None
    *_, verdict, hint = str(explanation).splitlines()
    assert verdict == "nothing here can run it"
    assert hint == (
        "no installed plugin offers format 'onnx'; "
        'pip install "inference-models-onnx[cpu]"'
    )


FASTER = "it misses the GPU; pip install other"
ADVISER = backend("adviser", formats=("onnx",), rank=2, advice=giving([FASTER]))


def told(*classes, own=None, **named):
    """The advice that an explanation ends with."""
    found = negotiated(classes, *([own] if own else []), **named)
    return list(
        Explanation.of(card(own or artifact()), found, registry(*classes)).advice
    )


def test_an_explanation_has_the_advice_of_backends_once():
    twin = backend("twin", formats=("onnx",), advice=giving([FASTER]))
    found = negotiated([ADVISER, twin])
    explanation = Explanation.of(card(), found, registry(ADVISER, twin))

    assert explanation.advice == (FASTER,)
    assert str(explanation).splitlines()[-1] == FASTER
    assert str(explanation).count(FASTER) == 1


def test_a_backend_that_would_open_what_is_derived_advises():
    trt = backend("trt", formats=("trt",), advice=giving([FASTER]))

    assert told(BUILDER, ONNX, trt) == [FASTER]


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("other", {}),
        ("onnx", {"device": "cpu"}),
        ("onnx", {"backend": "torch"}),
    ],
    ids=["format", "device", "backend"],
)
def test_a_backend_that_is_out_of_the_question_does_not_advise(form, named):
    other = backend("other", formats=("other",))

    assert told(ADVISER, TORCH, other, own=artifact(form), **named) == []


def test_a_backend_left_out_by_the_environment_does_not_advise(monkeypatch):
    monkeypatch.setenv("INFERENCE_MODELS_BACKENDS", "torch")

    assert told(ADVISER, TORCH) == []


def test_a_backend_advises_where_the_device_that_was_named_is_missing():
    assert told(ADVISER, device="cuda") == [FASTER]


def test_what_a_refusal_says_is_no_advice_as_well():
    refusing = backend(
        "refusing",
        formats=("onnx",),
        refuse=giving(FASTER),
        advice=giving([FASTER]),
    )

    assert told(refusing, device="cuda") == []


def test_advice_that_fails_is_told_and_stops_nothing():
    broken = backend("broken", formats=("onnx",), advice=raising(ValueError("oops")))

    assert told(broken, ADVISER) == [
        FASTER,
        "broken: advice() failed: ValueError: oops",
    ]
    assert names(negotiated([broken, ADVISER])) == ["adviser", "broken"]


@pytest.mark.parametrize("given", ["pip install faster", [1], None], ids=repr)
def test_advice_that_is_no_sentences_is_told(given):
    odd = backend("odd", formats=("onnx",), advice=giving(given))
    (sentence,) = told(odd)

    assert sentence.startswith("odd: advice() failed: TypeError: ")


def test_a_backend_that_is_not_available_advises_nothing():
    missing = raising(Unavailable("not installed"))
    absent = backend("absent", formats=("onnx",), devices=missing, advice=missing)

    assert told(absent) == []


def test_only_first_party_plugins_are_recommended():
    stranger = card(artifact("acme-format"))

    assert advice(stranger, registry(ONNX)) == [
        "no installed plugin offers format 'acme-format'"
    ]
    assert install_hint("architecture", "resnet", registry()) == (
        "pip install inference-models-resnet"
    )
    assert install_hint("architecture", "acme", registry()) is None


@pytest.mark.parametrize(
    ("kind", "name", "distribution"),
    [
        ("backend", "tensorrt", "inference-models-trt"),
        ("format", "onnx", "inference-models-onnx"),
        ("architecture", "florence-2", "inference-models-florence2"),
    ],
)
def test_a_plugin_that_was_set_aside_is_not_to_be_installed_again(
    kind, name, distribution
):
    aside = SetAside(name, distribution, "ImportError: libcudart.so is missing")
    without = attrs.evolve(registry(), set_aside=(aside,))

    assert install_hint(kind, name, without) == (
        f"{distribution} is installed, and was set aside"
    )
