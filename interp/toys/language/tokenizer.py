"""The language's tokenizer as a ``tokenizer.json``: one token a word, numbers two digits at a time."""

from __future__ import annotations

import json
from typing import Any

from interp.toys.language.lexicon import SPECIAL, vocabulary

__all__ = ["tokenizer_json"]

PIECES = r"<\w+>|\d\d|\w+|[^\w\s]"


def tokenizer_json() -> str:
    """The file that the tokenizers library reads: words and punctuation are split, ``1732`` is ``17 32``."""
    special: list[dict[str, Any]] = [
        {
            "id": i, "content": text, "special": True,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for i, text in enumerate(SPECIAL)
    ]  # fmt: skip
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Removed", "invert": True,
            },
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {text: i for i, text in enumerate(vocabulary())},
                "unk_token": "<unk>",
            },
        },
        indent=1,
    )  # fmt: skip
