"""Folders as transformers writes them, with a Florence-2 of seeded random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

PAGE = """A green car is parked in front of a yellow building with two brown doors.
Describe in detail what is shown in the image. What does the image describe? Locate the
objects with category name in the image, with their descriptions, and the region
proposals. What is the text in the image? The quick brown fox jumps over the lazy dog.
A cup of coffee stands on a wooden table beside a small cat. What text is in the region?
"""

MARKS = ["<od>", "</od>", "<ocr>", "</ocr>"]
MORE_MARKS = [
    "<cap>",
    "</cap>",
    "<ncap>",
    "</ncap>",
    "<dcap>",
    "</dcap>",
    "<grounding>",
    "</grounding>",
    "<seg>",
    "</seg>",
    "<sep>",
    "<region_cap>",
    "</region_cap>",
    "<region_to_desciption>",
    "</region_to_desciption>",
    "<proposal>",
    "</proposal>",
    "<poly>",
    "</poly>",
    "<and>",
]
"""As they are spelled in the published files."""

TINY_VISION = {
    "embed_dim": [8, 16, 32, 64],
    "num_heads": [1, 2, 4, 8],
    "num_groups": [1, 2, 4, 8],
    "depths": [1, 1, 2, 1],
    "window_size": 4,  # the last two stages are padded to it
    "projection_dim": 32,
}
TINY_TEXT = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 160,
}
BASE_TEXT = {
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "max_position_embeddings": 1024,
}
GENERATION = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "num_beams": 3,
    "pad_token_id": 1,
}
NAMES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}


@cache
def trained():
    """A tokenizer of BART's kind, with Florence-2's tokens in the published order."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import RobertaProcessing
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PAGE] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    places = [f"<loc_{number}>" for number in range(1000)]
    names = [*MARKS, *places, *MORE_MARKS, "<image>"]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def write_tokenizer(folder: Path, tokenizer=None) -> int:
    """A tokenizer's files, a small one's by default, and the number of its tokens."""
    tokenizer = tokenizer or trained()
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "special_tokens_map.json", {**NAMES, "image_token": "<image>"})
    _write(folder / "tokenizer_config.json", _kind(tokenizer))
    return tokenizer.get_vocab_size()


def write_vocabulary(folder: Path, described: bool = True, tokenizer=None) -> None:
    """The same tokenizer's files as older versions wrote them, without the whole.

    The tokens that were added are in its settings, or else in a file of their own.
    """
    tokenizer = tokenizer or trained()
    model = json.loads(tokenizer.to_str())["model"]
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""]), "utf-8"
    )
    kind = _kind(tokenizer)
    added = kind["added_tokens_decoder"]
    first = {"<mask>": len(model["vocab"])}  # published vocabularies have it
    _write(folder / "vocab.json", model["vocab"] | first)
    if not described:
        del kind["added_tokens_decoder"]
        named = {token["content"]: int(number) for number, token in added.items()}
        past = {name: n for name, n in named.items() if n > first["<mask>"]}
        _write(folder / "added_tokens.json", past)
    _write(folder / "tokenizer_config.json", kind)
    flags = {"lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    mask = {"mask_token": {"content": "<mask>", **flags}}
    _write(folder / "special_tokens_map.json", NAMES | mask)


def _kind(tokenizer):
    """What transformers keeps of a tokenizer beside its vocabulary."""
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    added = {
        str(number): {"content": token.content}
        | {flag: getattr(token, flag) for flag in flags}
        for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    return {
        "added_tokens_decoder": added,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "extra_special_tokens": {"image_token": "<image>"},
        "model_max_length": 1024,
        "processor_class": "Florence2Processor",
        "tokenizer_class": "BartTokenizer",
        "trim_offsets": True,
        **NAMES,
    }


def _write(path: Path, data) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")


def write_settings(folder: Path, side: int) -> None:
    """What transformers' processors and generation read."""
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": (side // 32) ** 2 + 1,
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
    _write(folder / "preprocessor_config.json", images)
    _write(folder / "generation_config.json", GENERATION)
    grounding = {"banned_grounding_tokens": ["the image", "it"]}
    rules = {
        "num_additional_image_tokens": 0,
        "post_processor_config": {"phrase_grounding": grounding},
        "processor_class": "Florence2Processor",
    }
    _write(folder / "processor_config.json", rules)


def write_florence(folder: Path, seed: int = 0, size: str = "tiny") -> Path:
    """A folder of "tiny" or of "base", of random weights whose texts vary."""
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    image_token = vocabulary - 1
    if size == "base":
        vision, text, side = {"projection_dim": 768}, BASE_TEXT, 768
        vocabulary = 51_289
    else:
        vision, text, side = TINY_VISION, TINY_TEXT, 96
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = Florence2Config(
        vision_config=vision,
        text_config={
            "model_type": "bart",
            "vocab_size": vocabulary,
            "decoder_start_token_id": 2,
            **tokens,
            **text,
        },
        image_token_id=image_token,
    )
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(config).eval()
    _enliven(model, size)
    model.save_pretrained(folder)
    write_settings(folder, side)
    return folder


def write_adapter(folder: Path, target: Path, seed: int = 1) -> Path:
    """A LoRA of seeded random weights for a folder's model, as peft writes it."""
    import peft
    import torch
    from transformers import Florence2ForConditionalGeneration

    network = Florence2ForConditionalGeneration.from_pretrained(folder).eval()
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(network, settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    adapted.save_pretrained(target)
    return target


def _enliven(model, size: str) -> None:
    """Weights that let each pixel and word matter; some texts end, and some go on."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif size == "tiny":
                parameter.normal_(0, 0.3 if "shared" not in name else 1.0)
            elif "shared" in name or "embed" in name:
                parameter.normal_(0, 0.1)
        if size == "tiny":
            model.get_input_embeddings().weight[2].mul_(1.2)
