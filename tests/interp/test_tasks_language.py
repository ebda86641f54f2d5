"""Tasks in the labelled language: chosen by the vocabulary, the same pairs as the language's, word by word."""

from __future__ import annotations

from functools import cache

import pytest

from interp import tasks
from interp.errors import InputError
from interp.tasks.scoring import NONE
from interp.toys import language
from tests.interp.pieces import Pieces


@cache
def tokenizer():
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer.from_str(language.tokenizer_json())
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("name", tasks.NAMES)
def test_the_language_is_chosen_by_its_vocabulary_and_gives_its_own_pairs(name: str, split: str) -> None:
    words = language.vocabulary()
    for corruption in language.CORRUPTIONS[name]:
        task = tasks.load(name, tokenizer=tokenizer(), split=split, n=20, seed=3, corruption=corruption)
        assert (task.provenance["source"], task.reference) == ("language", None)
        pairs = language.prompt_pairs(name, n=60, split=split, seed=3, corruption=corruption)
        first = {pair.clean: pair for pair in reversed(pairs)}
        for i, (clean, _) in enumerate(task.texts):
            pair = first[tuple(clean.split(" "))]
            for tokens, prompt in ((task.clean, pair.clean), (task.corrupted, pair.corrupted)):
                row = tokens.ids[i][tokens.mask[i]].tolist()
                assert [words[j] for j in row] == ["<bos>", *prompt]
            for ids, answers in ((task.answers, pair.answers), (task.wrong, pair.wrong)):
                assert {words[j] for j in ids[i].tolist() if j != NONE} == set(answers)


def test_a_language_task_is_kept_and_told_apart_by_its_facts(tmp_path) -> None:
    for name in tasks.NAMES:
        task = tasks.load(name, tokenizer=tokenizer(), n=12, split="heldout")
        back = tasks.Task.load(task.save(tmp_path / f"{name}.jsonl"))
        assert back.describe() == task.describe()
        assert back.facts == task.facts
        assert len({text for text, _ in task.texts}) == 12


def test_the_language_has_its_own_corruptions_and_needs_its_own_tokenizer() -> None:
    with pytest.raises(InputError, match="no corruption of sva 'other_nummer'; did you mean 'other_number'"):
        tasks.load("sva", tokenizer=tokenizer(), corruption="other_nummer")
    with pytest.raises(InputError, match="prompts of the language need its tokenizer"):
        tasks.load("sva", tokenizer=Pieces(), source="language")
    with pytest.raises(InputError, match="nouns for things, singular and plural, are one token"):
        tasks.load("sva", tokenizer=tokenizer(), source="english", split="heldout")


def test_words_outside_the_vocabulary_are_reported_by_row(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("clean,corrupted,answer\nThe zebra near,The zebras near,the\n")
    with pytest.raises(
        InputError, match="row 1: .*outside the vocabulary|row 1: clean and corrupted are the same"
    ):
        tasks.read(path, tokenizer=tokenizer())
