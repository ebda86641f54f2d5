"""Tasks: pairs of prompts with an answer, a metric, and the published circuit where there is one.

`load` writes the field's tasks for any tokenizer or takes them from the embedded language; `read` takes your own
CSV or JSON lines; `reference` gives the published circuits. Every public name is imported on first use.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CORRUPTIONS": "loading",
        "NAMES": "loading",
        "Reference": "published",
        "Task": "task",
        "load": "loading",
        "read": "reading",
        "reference": "published",
    },
)
