"""Folders as transformers writes them, with a Florence-2 of seeded random weights."""

from __future__ import annotations

import json
from pathlib import Path

PAGE = """A green car is parked in front of a yellow building with two brown doors.
Describe in detail what is shown in the image. What does the image describe? Locate the
objects with category name in the image, with their descriptions, and the region
proposals. What is the text in the image? The quick brown fox jumps over the lazy dog.
A cup of coffee stands on a wooden table beside a small cat. What text is in the region?
"""

MARKS = ["od", "ocr", "cap", "ncap", "dcap", "poly", "and", "sep", "region_cap"]

TINY_VISION = {
    "embed_dim": [8, 16, 32, 64],
    "num_heads": [1, 2, 4, 8],
    "num_groups": [1, 2, 4, 8],
    "depths": [1, 1, 2, 1],
    "window_size": 3,
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


def write_tokenizer(folder: Path) -> int:
    """A small tokenizer of BART's kind, with Florence-2's tokens; their number."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    first = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=600,
        special_tokens=first,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([PAGE] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    marks = [f"<{slash}{mark}>" for mark in MARKS for slash in ("", "/")]
    places = [f"<loc_{number}>" for number in range(1000)]
    tokenizer.add_tokens([AddedToken(name) for name in (*marks, *places, "<image>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return tokenizer.get_vocab_size()


def write_settings(folder: Path, side: int) -> None:
    """What transformers' processors and generation read."""
    images = {
        "image_processor_type": "CLIPImageProcessor",
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
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    grounding = {"banned_grounding_tokens": ["the image", "it"]}
    rules = {"post_processor_config": {"phrase_grounding": grounding}}
    (folder / "processor_config.json").write_text(json.dumps(rules))


def write_florence(folder: Path, seed: int = 0, size: str = "tiny") -> Path:
    """A folder of "tiny" or of "base", of random weights whose texts vary."""
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
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
        image_token_id=vocabulary - 1,
    )
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif size == "tiny":
                parameter.normal_(0, 0.3 if "shared" not in name else 1.0)
            elif "shared" in name or "embed" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    write_settings(folder, side)
    return folder
