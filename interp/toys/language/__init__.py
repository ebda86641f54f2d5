"""A small English-like language in which everything about every token is known.

``lexicon.py`` holds the words, ``writing.py`` the page and the dice, ``grammar.py`` plain sentences, ``tasks.py`` the
constructs with a right answer, ``passages.py`` the rest (stories, lists, repeats), ``corpus.py`` the endless labelled
text, ``prompts.py`` clean and corrupted prompts of the tasks.
"""

from interp.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "CORRUPTIONS": "prompts",
        "Corpus": "corpus",
        "Document": "corpus",
        "LABELS": "lexicon",
        "MIXTURE": "corpus",
        "PromptPair": "prompts",
        "TASKS": "prompts",
        "document": "corpus",
        "encode": "lexicon",
        "prompt_pairs": "prompts",
        "tokenizer_json": "tokenizer",
        "vocabulary": "lexicon",
    },
)
