"""Florence-2 on every backend, beside transformers' own `generate`."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import attrs
import numpy as np
import pytest
import torch
from plugins.florence2.tests.florence_folders import write_adapter, write_florence
from plugins.hf.tests.hub_server import HubServer
from safetensors.torch import load_file, save_file
from transformers import Florence2ForConditionalGeneration

from inference_models import (
    AutoModel,
    Detections,
    InstanceDetections,
    InvalidCard,
    InvalidInput,
    InvalidOption,
    InvalidWeights,
    NoBackend,
    generation,
)
from inference_models_florence2 import tasks

from .cards import write_florence2_cards

BACKENDS = ["torch", "hf", "onnx"]
TIE = 0.5
"""Best logits that are nearer than that may change places in half precision."""
PROMPTS = ["<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>a small cat on a table", "<OD>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_florence(tmp_path_factory.mktemp("florence2") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def load(folder, cache, monkeypatch):
    """Loads the folder's model; what is derived of it is derived once."""
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(cache))

    def load_model(backend=None, **options):
        return AutoModel.from_pretrained(folder, backend=backend, **options)

    return load_model


@pytest.fixture(scope="module")
def images(photos):
    return [photos["astronaut"], photos["coffee"], photos["chelsea"]]


@pytest.fixture(scope="module")
def network(folder):
    return Florence2ForConditionalGeneration.from_pretrained(folder).eval()


def generated(network, model, images, prompts, **options):
    """Transformers' tokens for prompts on pixels, each row without its padding."""
    pixels, _ = model.pre_process(images)
    values = torch.from_numpy(np.asarray(pixels["pixel_values"]))
    tokens = model._loaded.architecture.tokens
    words, mask = tokens.batch([tasks.words(prompt) for prompt in prompts])
    with torch.inference_mode():
        seen = network.model.get_image_features(values).pooler_output
        blanks = np.full(seen.shape[:2], network.config.image_token_id)
        ids = torch.from_numpy(np.concatenate([blanks, words], axis=1))
        ones = np.ones(seen.shape[:2], np.int64)
        found = network.generate(
            input_ids=ids,
            attention_mask=torch.from_numpy(np.concatenate([ones, mask], axis=1)),
            pixel_values=values,
            do_sample=False,
            **options,
        )
    return [trimmed(row[1:]) for row in found.tolist()]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The folder of a model of the full size, and transformers' network of it."""
    folder = write_florence(tmp_path_factory.mktemp("full") / "base", size="base")
    return folder, Florence2ForConditionalGeneration.from_pretrained(folder).eval()


def test_threads_load_folders_of_transformers_at_the_same_time(load):
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(load, "hf") for _ in range(8)]

    assert all(future.result().backend == "hf" for future in found)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["hf", "onnx"])
def test_tokens_of_the_full_size_are_those_of_generate(
    backend, full, tmp_path, images, monkeypatch
):
    folder, network = full
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    model = AutoModel.from_pretrained(folder, backend=backend)
    for count, beams in ((1, 1), (2, 1), (2, 3)):
        options = {"num_beams": beams, "max_new_tokens": 12}
        expected = generated(network, model, images[:count], PROMPTS[:count], **options)
        inputs, _ = model.pre_process(images[:count])
        outputs = model.forward(inputs, prompt=PROMPTS[:count], **options)

        assert expected == [trimmed(row) for row in outputs["tokens"].tolist()]


def trimmed(row):
    """Tokens without padding behind them."""
    row = list(row)
    while row and row[-1] == 1:
        row.pop()
    return row


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_are_those_of_generate(backend, count, beams, load, images, network):
    model = load(backend)
    options = {"num_beams": beams, "max_new_tokens": 25}
    expected = generated(network, model, images[:count], PROMPTS[:count], **options)

    inputs, _ = model.pre_process(images[:count])
    outputs = model.forward(inputs, prompt=PROMPTS[:count], **options)

    assert expected == [trimmed(row) for row in outputs["tokens"].tolist()]


@pytest.fixture
def gaps(monkeypatch):
    """How far apart the two best logits are that may follow, of each step."""
    found, follow = [], generation._rule_out

    def followed(rules, scores, texts, most):
        follow(rules, scores, texts, most)
        second, best = np.sort(scores[0])[-2:]
        found.append(best - second)

    monkeypatch.setattr(generation, "_rule_out", followed)
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
@pytest.mark.parametrize("number", range(3))
def test_half_precision_on_a_gpu_writes_what_the_cpu_writes(number, load, images, gaps):
    cpu = load("torch", device="cpu", quantization="fp32")
    gpu = load("torch", device="cuda:0", quantization="fp16")
    options = {"prompt": PROMPTS[number], "max_new_tokens": 20}
    expected, found = (
        model.forward(model.pre_process(images[number])[0], **options)["tokens"][0]
        for model in (cpu, gpu)
    )

    # Where the best two are nearly tied, half precision may choose the other, and the
    # texts part: what is compared ends before the first such step.
    margins = gaps[: len(expected)]  # the CPU's, which writes first
    certain = next((i for i, gap in enumerate(margins) if gap < TIE), len(margins))
    assert certain > 1
    assert expected.tolist()[:certain] == found.tolist()[:certain]


def test_one_folder_has_artifacts_for_three_backends(folder):
    shown = str(AutoModel.explain(folder))

    assert "torch    cpu     fp32       torch   runs" in shown
    assert "hf       cpu     fp32       hf      runs" in shown
    assert "torch -> onnx" in shown


@pytest.mark.parametrize("backend", BACKENDS)
def test_prompts_on_one_picture_encode_it_once(backend, load, images):
    model = load(backend)
    sessions = model._loaded.sessions
    calls = []
    original = sessions["vision"]
    sessions["vision"] = lambda **inputs: calls.append(1) or original(**inputs)

    several = model.prompt(images[0], PROMPTS, max_new_tokens=9)

    alone = [model.prompt(images[0], p, max_new_tokens=9)[0] for p in PROMPTS]
    assert several == alone
    assert len(calls) == 1 + len(PROMPTS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_encoding_answers_as_its_images_do(backend, load, images):
    model = load(backend)
    encoding = model.encode(images)

    for prompt in PROMPTS:
        expected = model.prompt(images, prompt, max_new_tokens=9)
        assert expected == model.prompt(encoding, prompt, max_new_tokens=9)


def test_text_comes_in_pieces_that_make_the_answer(load, images):
    model = load()
    pieces = {}

    def follow(number, piece):
        pieces.setdefault(number, []).append(piece)

    options = {"max_new_tokens": 20, "on_text": follow}
    answers = model.prompt(images[:2], "<CAPTION>", **options)

    assert answers == ["".join(pieces[number]).strip() for number in (0, 1)]
    assert all(len(of_one) > 1 for of_one in pieces.values())


def test_a_text_may_be_as_long_as_the_model_can_write(load, images):
    model = load()
    never = attrs.evolve(model._loaded.architecture.rules, ends=(-1,))
    model._loaded.architecture.rules = never
    inputs, _ = model.pre_process(images[:1])

    longest = model.forward(inputs, prompt="<OD>", max_new_tokens=160)["tokens"]
    by_default = model.forward(inputs, prompt="<OD>")["tokens"]

    assert longest.shape == (1, 160)
    np.testing.assert_array_equal(longest, by_default)


def test_free_text_that_asks_for_a_description_is_the_longest_caption(load, images):
    model = load()

    asked = model.prompt(images[0], "Describe the image contents", max_new_tokens=9)

    assert asked == model.caption_image(images[0], "very_detailed", max_new_tokens=9)


def test_special_tokens_are_shown_on_demand(load, images):
    (text,) = load().prompt(
        images[0], "<OD>", max_new_tokens=5, skip_special_tokens=False
    )

    assert text.startswith("<s>")
    assert text.endswith("</s>")


def test_an_answer_is_not_padded_to_the_longest_of_its_batch(load, images):
    model, shown = load(), {"skip_special_tokens": False, "max_new_tokens": 40}

    together = model.prompt(images, PROMPTS, **shown)

    pairs = zip(images, PROMPTS, strict=True)
    assert together == [model.prompt(*pair, **shown)[0] for pair in pairs]


def test_who_follows_a_text_is_called(load, images):
    with pytest.raises(InvalidOption, match="'on_text' must be callable"):
        load().prompt(images[0], "<OD>", on_text="print")


REGION = (10, 20, 200, 180)
METHODS = {
    "caption_image": ({}, str),
    "detect_objects": ({}, Detections),
    "ground_phrase": ({"phrase": "a cat"}, Detections),
    "segment_phrase": ({"phrase": "a cat"}, InstanceDetections),
    "segment_region": ({"xyxy": REGION}, InstanceDetections),
    "classify_image_region": ({"xyxy": REGION}, str),
    "caption_image_region": ({"xyxy": REGION}, str),
    "ocr_image": ({}, str),
    "ocr_image_region": ({"xyxy": REGION}, str),
    "parse_document": ({}, Detections),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_task_gives_a_typed_result_for_each_image(name, load, images):
    arguments, kind = METHODS[name]
    method = getattr(load(), name)

    one = method(images[0], **arguments, max_new_tokens=12)
    several = method(images, **arguments, max_new_tokens=12)

    assert [type(result) for result in one] == [kind]
    assert [type(result) for result in several] == [kind] * 3


@pytest.mark.parametrize("mode", ["classes", "captions", "rois"])
def test_boxes_lie_in_the_original_picture(mode, load, images):
    for found, image in zip(
        load().detect_objects(images, mode, max_new_tokens=40), images, strict=True
    ):
        height, width = image.shape[:2]
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [width, height, width, height]).all()


def test_given_classes_number_what_is_found(load, images):
    (found,) = load().detect_objects(
        images[0], classes=["cat", "dog"], max_new_tokens=40
    )

    assert found.class_names[:2] == ("cat", "dog")


def test_several_regions_on_one_picture_give_a_result_each(load, images):
    model = load()
    regions = [REGION, (0, 0, 50, 60)]

    texts = model.caption_image_region(images[0], regions, max_new_tokens=9)

    assert texts == [
        model.caption_image_region(images[0], region, max_new_tokens=9)[0]
        for region in regions
    ]


TRIANGLES = "<s><poly>{0}</poly><poly>{0}</poly></s>".format(
    "<loc_100><loc_100><loc_800><loc_100><loc_100><loc_800>"
)


@pytest.fixture
def drawing(load):
    """A model whose texts all outline two things."""
    model = load()
    model._loaded.architecture.postprocess = lambda outputs, frames, *_: (
        [TRIANGLES] * len(frames)
    )
    return model


@pytest.mark.parametrize(
    ("count", "phrase", "names"),
    [
        (1, " a cat ", ["a cat"]),
        (1, ["a cat", "a cup"], ["a cat", "a cup"]),
        (2, "a cat", ["a cat", "a cat"]),
        (3, ["a cat", "a cup", "a dog"], ["a cat", "a cup", "a dog"]),
    ],
)
def test_what_is_segmented_is_labelled_with_its_phrase(
    count, phrase, names, drawing, images
):
    found = drawing.segment_phrase(images[:count], phrase, max_new_tokens=2)

    assert [each.names for each in found] == [[name] * 2 for name in names]


def test_what_is_segmented_in_a_region_is_one(drawing, images):
    (found,) = drawing.segment_region(images[0], REGION, max_new_tokens=2)

    assert found.names == ["region"] * 2


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda m, i: m.prompt(i, ["<OD>"] * 2),
            InvalidInput,
            "2 prompts for 3 images",
        ),
        (lambda m, i: m.prompt(i, ""), InvalidOption, "the prompt is empty"),
        (lambda m, i: m.prompt(i, "<OD> cats"), InvalidOption, "takes no text"),
        (lambda m, i: m.prompt(i, "<OD>", max_new_tokens=0), InvalidOption, "above 0"),
        (
            lambda m, i: m.prompt(i, "<OD>", max_new_tokens=161),
            InvalidOption,
            "161 is more than the 160 that this model can write",
        ),
        (
            lambda m, i: m.prompt(i, "<OD>", num_beams=101),
            InvalidOption,
            "num_beams 101 is more than 100",
        ),
        (lambda m, i: m.prompt(i, "<OD>", beams=3), InvalidOption, "no option 'beams'"),
        (lambda m, i: m.prompt(i[0], "word " * 200), InvalidInput, "shorten it"),
        (
            lambda m, i: m.caption_image(i, "long"),
            InvalidOption,
            "no granularity 'long'",
        ),
        (
            lambda m, i: m.detect_objects(i, classes=[]),
            InvalidOption,
            "no list of names",
        ),
        (lambda m, i: m.segment_region(i, (0, 0, 9999, 9)), InvalidInput, "not inside"),
        (
            lambda m, i: m.segment_region(i, [REGION] * 2),
            InvalidInput,
            "2 regions for 3",
        ),
        (lambda m, i: m.ground_phrase(i, " "), InvalidOption, "neither a text"),
        (lambda m, i: m.ground_phrase(i, None), InvalidOption, "neither a text"),
        (lambda m, i: m.detect_objects(i, classes=3), InvalidOption, "3 is no list"),
        (lambda m, i: m.caption_image(i, []), InvalidOption, r"no granularity \[\]"),
        (
            lambda m, i: m.prompt(i, "<OD>", skip_special_tokens="no"),
            InvalidOption,
            "'skip_special_tokens' must be <class 'bool'>",
        ),
    ],
)
def test_bad_input_is_said_in_a_sentence(call, error, words, load, images):
    model = load()

    with pytest.raises(error, match=words):
        call(model, images)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "fetch all files"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be read"),
        (
            lambda f: (f / "generation_config.json").write_text('{"min_length": 9}'),
            "min_length 9, which is not supported",
        ),
    ],
)
def test_damaged_files_beside_the_weights_are_named(change, words, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("vocab.json", "merges.txt"):
        (copy / name).unlink(missing_ok=True)
    change(copy)
    with pytest.raises((InvalidCard, InvalidWeights), match=words):
        AutoModel.from_pretrained(copy)


@pytest.mark.parametrize(
    ("part", "settings", "words"),
    [
        ("text_config", {"d_model": "wide"}, "d_model 'wide', where"),
        ("text_config", {"encoder_layers": 1.5}, r"encoder_layers 1\.5, where"),
        ("text_config", {"encoder_attention_heads": 0}, "attention_heads 0, where"),
        ("text_config", {"activation_function": "tanh"}, "'tanh' is not one of gelu"),
        ("text_config", [1], r"text_config \[1\] is no mapping"),
        ("text_config", {"encoder_layers": 10**6}, "wants far more or larger ones"),
        ("vision_config", {"patch_stride": [0, 2, 2, 2]}, r"\[0, 2, 2, 2\], where"),
        ("vision_config", {"depths": [1, 1, 1]}, "lists of 3, 4 values, where each"),
        ("vision_config", {"depths": []}, r"depths \[\], where"),
    ],
)
def test_sizes_that_cannot_be_are_refused(part, settings, words, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    if isinstance(settings, dict):
        settings = config[part] | settings
    config[part] = settings
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises((InvalidCard, InvalidWeights), match=words):
        AutoModel.from_pretrained(copy, backend="torch")


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A LoRA of the folder's model, as peft writes it, and the merged network."""
    peft = pytest.importorskip("peft")
    path = write_adapter(folder, tmp_path_factory.mktemp("adapter"))
    network = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    return path, peft.PeftModel.from_pretrained(network, path).merge_and_unload().eval()


def test_an_adapter_is_laid_over_its_base(
    folder, adapter, tmp_path, images, monkeypatch, cache
):
    path, merged = adapter
    write_florence2_cards(folder, path, tmp_path)
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path))
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(cache))
    model = AutoModel.from_pretrained("acme-tuned")
    base = AutoModel.from_pretrained("acme-base", backend="hf")

    inputs, _ = model.pre_process(images[:1])
    pixels = torch.from_numpy(np.asarray(inputs["pixel_values"]))
    expected = merged.model.get_image_features(pixels).pooler_output
    encoded = model.encode(images[:1]).parts[0].arrays["image_features"]

    np.testing.assert_allclose(expected.detach(), encoded, atol=1e-4)
    tuned = model.prompt(images, "<CAPTION>", max_new_tokens=12)
    assert tuned != base.prompt(images, "<CAPTION>", max_new_tokens=12)


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A Hub that has the folder's files as those of the public base model."""
    with HubServer() as server:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        server.adds("florence-community/Florence-2-base", files)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.mark.parametrize("name", ["florence2-base", "florence-2-base"])
def test_a_public_id_is_fetched_from_the_hub(name, hub, load, images):
    model = AutoModel.from_pretrained(name)

    assert model.card.id == name
    assert name in AutoModel.models()
    asked = {"prompt": "<CAPTION>", "max_new_tokens": 9}
    assert model(images, **asked) == load()(images, **asked)


def test_an_adapters_folder_names_its_base(hub, adapter, tmp_path, images):
    copy = shutil.copytree(adapter[0], tmp_path / "adapter")
    config = json.loads((copy / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "microsoft/Florence-2-base"
    (copy / "adapter_config.json").write_text(json.dumps(config))

    tuned = AutoModel.from_pretrained(copy)

    assert tuned.backend == "hf"
    asked = {"prompt": "<CAPTION>", "max_new_tokens": 9}
    assert tuned(images, **asked) != AutoModel.from_pretrained("florence2-base")(
        images, **asked
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("peft_type", "IA3", "is not 'LORA'"),
        ("megatron_config", {"a": 1}, "changes what the adapter means"),
        ("use_qalora", True, "use_qalora changes what the adapter means"),
        ("target_modules", "(a+)+$", "neither a list"),
        ("target_modules", ["a." * 300], "target_modules has 'a.a"),
        ("target_modules", [f"a{n}" for n in range(1001)], "names 1001 modules"),
        ("modules_to_save", ["(a|a)"], "no name of a module"),
        ("rank_pattern", {"(q|k)_proj": 4}, "regular expressions are not followed"),
        ("alpha_pattern", {"q_proj": "x"}, "alpha_pattern: q_proj must be a number"),
        ("lora_alpha", [8], "lora_alpha must be a number"),
        ("r", 10**7, "wants far more or larger ones"),
        ("r", 8, "does not fit|lacks|another model"),
    ],
)
def test_an_adapter_that_is_not_followed_is_refused(
    key, value, words, folder, adapter, tmp_path, monkeypatch
):
    copy = shutil.copytree(adapter[0], tmp_path / "adapter")
    config = json.loads((copy / "adapter_config.json").read_text())
    config[key] = value
    (copy / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "cards").mkdir()
    write_florence2_cards(folder, copy, tmp_path / "cards")
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    with pytest.raises((InvalidWeights, NoBackend), match=words):
        AutoModel.from_pretrained("acme-tuned")


def test_names_in_an_adapter_do_not_garble_a_message(
    folder, adapter, tmp_path, monkeypatch
):
    copy = shutil.copytree(adapter[0], tmp_path / "adapter")
    weights = copy / "adapter_model.safetensors"
    save_file({**load_file(weights), "\x1b[2Jfine": torch.ones(1)}, weights)
    (tmp_path / "cards").mkdir()
    write_florence2_cards(folder, copy, tmp_path / "cards")
    monkeypatch.setenv("INFERENCE_MODELS_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("INFERENCE_MODELS_CACHE", str(tmp_path / "cache"))
    with pytest.raises((InvalidWeights, NoBackend), match=r"unknown '\\x1b\[2Jfine'"):
        AutoModel.from_pretrained("acme-tuned")
