"""The processor of transformers, made without a tokenizer's or an image's files."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

EIGHT = r"<loc_(\d+)>" * 8
CONFIG: dict[str, Any] = {
    "ocr": {"PATTERN": f"(.+?){EIGHT}", "AREA_THRESHOLD": 0.0},
    "phrase_grounding": {"banned_grounding_tokens": ["it", "the image"]},
    "pure_text": {},
    "description_with_bboxes": {},
    "description_with_polygons": {},
    "polygons": {},
    "bboxes": {},
    "description_with_bboxes_or_polygons": {},
}
"""The keys that the published `post_processor_config` has, with two of its phrases."""


@cache
def processor() -> Any:
    """Its `Florence2Processor`: prompts, and what comes after generation."""
    from transformers import ProcessorMixin
    from transformers.models.florence2.processing_florence2 import Florence2Processor

    class Bare(ProcessorMixin):
        def __init__(self, *_: Any) -> None:
            """Keep nothing: the tokenizer here has special tokens and no words."""

    class Reference(Florence2Processor, Bare):
        pass

    images = SimpleNamespace(image_seq_length=577)
    special = ["<s>", "</s>", "<pad>"]
    tokenizer = SimpleNamespace(
        image_token="<image>", image_token_id=1, all_special_tokens=special
    )
    return Reference(images, tokenizer, post_processor_config=CONFIG)
