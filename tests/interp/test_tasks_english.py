"""The English tasks: aligned for every seed, right by an independent reading of the text, apart where held out."""

from __future__ import annotations

import calendar
import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import tasks
from interp.errors import InputError
from interp.tasks import Task
from interp.tasks.english import lexicon, numbers
from interp.tasks.scoring import NONE
from tests.conftest import SHARED
from tests.interp.pieces import Pieces

CASES = [(name, corruption) for name in tasks.NAMES for corruption in tasks.CORRUPTIONS[name]]
CHANGED = {
    ("ioi", "abc"): {3},
    ("docstring", "random_random"): {5},
    ("docstring", "random_def"): {3},
    ("docstring", "random_doc"): {2},
    ("induction", "broken"): {10},
    ("calendar", "other_offset"): {1, 2},  # one day, two days
}
"""How many tokens a corruption changes; one where nothing is said."""


@cache
def gpt2():
    from interp.models import hf

    folder = SHARED / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return hf.load_tokenizer(folder)


def check_aligned(task: Task, tokenizer, corruption: str) -> None:
    """Every pair, from the texts alone: same length, the same but for the changed words, the answer the next token."""
    encode = lambda text: tokenizer([text], add_special_tokens=False)["input_ids"][0]  # noqa: E731
    allowed = CHANGED.get((task.name, corruption), {1})
    for i, (clean, corrupted) in enumerate(task.texts):
        rows = [t.ids[i][t.mask[i]].tolist() for t in (task.clean, task.corrupted)]
        assert len(rows[0]) == len(rows[1])
        assert sum(a != b for a, b in zip(*rows, strict=True)) in allowed
        assert rows[0][0] == tokenizer.bos_token_id
        answers = [j for j in task.answers[i].tolist() if j != NONE]
        if task.name == "induction":
            continue
        assert [encode(clean), encode(corrupted)] == [rows[0][1:], rows[1][1:]]
        if task.name != "greater_than":  # " 17" and "00" are " 1700" when written together
            assert [encode(clean + task.clean.show(j))[-1] for j in answers] == answers
            assert len(encode(clean + task.clean.show(answers[0]))) == len(rows[0])


def check_right(task: Task) -> None:
    """The answers by another reading of the text than the one that made them."""
    show = task.clean.show
    for i, ((clean, _), fact) in enumerate(zip(task.texts, task.facts, strict=True)):
        right, wrong = ({show(j) for j in ids[i].tolist() if j != NONE} for ids in (task.answers, task.wrong))
        assert not right & wrong
        if task.name == "ioi":
            (io,), (s,) = right, wrong
            assert (clean.count(io), clean.count(s)) == (1, 2)
            assert fact["order"] == ("ABBA" if clean.index(io) < clean.index(s) else "BABA")
        elif task.name == "greater_than":
            century, year = re.findall(r"(\d\d)(\d\d) to the year", clean)[0]
            assert clean.endswith(f" {century}")
            assert right == {f"{y:02}" for y in range(100) if y > int(year)}
            assert right | wrong == {f"{y:02}" for y in range(100)}
        elif task.name == "docstring":
            arguments = re.findall(r"\w+", clean[clean.index("self") : clean.index("):")])[1:]
            documented = re.findall(r":param (\w+):", clean)
            assert right == {" " + arguments[arguments.index(documented[-1]) + 1]}
            assert right | wrong == {f" {a}" for a in arguments}
        elif task.name == "gender":
            (name,) = [n for n in (*lexicon.FEMALE, *lexicon.MALE) if n in re.findall(r"\w+", clean)]
            assert right == ({" she"} if name in lexicon.FEMALE else {" he"})
            assert right | wrong == {" he", " she"}
        elif task.name == "sva":
            plural = fact["subject"].endswith("s") or fact["subject"] == "children"
            assert plural == (fact["number"] == "plural")
            assert right <= (
                {" are", " have", " were", " do"} if plural else {" is", " has", " was", " does"}
            )
        elif task.name == "calendar":
            names = [
                n
                for n in (list(calendar.day_name) if fact["unit"] == "day" else list(calendar.month_name))
                if n
            ]
            start = next(k for k, n in enumerate(names) if f" {n}" in clean)
            words = "zero one two three four five six seven eight nine ten eleven".split()  # noqa: SIM905
            offset = next(words.index(w) for w in clean.replace(",", " ").split() if w in words)
            assert right == {f" {names[(start + offset) % len(names)]}"}
            assert right | wrong == {f" {n}" for n in names}


@pytest.mark.parametrize(("name", "corruption"), CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**40), split=st.sampled_from(["train", "heldout"]), n=st.integers(1, 12))
def test_every_pair_is_aligned_and_right_for_gpt2(
    name: str, corruption: str, seed: int, split: str, n: int
) -> None:
    task = tasks.load(
        name, tokenizer=gpt2(), split=split, n=n, seed=seed, corruption=corruption, source="english"
    )
    assert len({tuple(row) for row in task.clean.ids.tolist()}) == n
    check_aligned(task, gpt2(), corruption)
    check_right(task)


@pytest.mark.parametrize(("name", "corruption"), CASES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_any_object_that_is_called_like_a_tokenizer_will_do(name: str, corruption: str, split: str) -> None:
    tokenizer = Pieces()
    task = tasks.load(name, tokenizer=tokenizer, split=split, n=40, corruption=corruption)
    check_aligned(task, tokenizer, corruption)
    check_right(task)


def test_the_corrupted_indirect_object_prompts_are_what_they_are_called() -> None:
    for corruption in tasks.CORRUPTIONS["ioi"]:
        task = tasks.load("ioi", tokenizer=Pieces(), n=30, corruption=corruption)
        assert {fact["order"] for fact in task.facts} == {"ABBA", "BABA"}
        for (clean, corrupted), fact in zip(task.texts, task.facts, strict=True):
            io, s = fact["io"], fact["s"]
            if corruption == "abc":
                assert not {io, s} & set(re.findall(r"\w+", corrupted))
                assert len(set(fact["corrupted_names"])) == 3
            elif corruption == "swap":
                assert (corrupted.count(f" {io}"), corrupted.count(f" {s}")) == (2, 1)
            else:
                head, _, tail = clean.rpartition(f" {s} ")
                assert corrupted == f"{head} {fact['corrupted_names'][2]} {tail}"


def test_a_repeated_sequence_tells_its_next_token_and_a_broken_one_does_not() -> None:
    for corruption in tasks.CORRUPTIONS["induction"]:
        task = tasks.load("induction", tokenizer=Pieces(), n=30, corruption=corruption)
        for i in range(len(task)):
            clean, corrupted = (t.ids[i][t.mask[i]].tolist()[1:] for t in (task.clean, task.corrupted))
            first = clean.index(clean[-1])
            assert first < len(clean) - 1
            assert task.answers[i].tolist() == [clean[first + 1]]
            if corruption == "broken":
                assert len(set(corrupted)) == len(corrupted)
            else:
                assert task.wrong[i].tolist() == [corrupted[first + 1]]


def test_agreement_comes_bare_and_across_attractors_of_both_numbers() -> None:
    task = tasks.load("sva", tokenizer=Pieces(), n=120)
    kinds = {(fact["structure"], fact["number"], fact["attractor"]) for fact in task.facts}
    both = ("singular", "plural")
    assert kinds == {("simple", n, None) for n in both} | {
        (s, n, a) for s in ("pp", "rc") for n in both for a in both
    }


HELD = {
    "ioi": ("io", "s", "place", "object", "template"),
    "gender": ("name", "template"),
    "sva": ("subject", "template"),
    "greater_than": ("noun", ("century", "year")),
    "docstring": ("answer_argument", "function"),
    "calendar": ("template", ("unit", "start", "offset")),
}


@pytest.mark.parametrize("name", list(HELD))
def test_what_is_held_out_never_occurs_in_training(name: str) -> None:
    splits = [tasks.load(name, tokenizer=Pieces(), n=60, split=split) for split in ("train", "heldout")]
    pick = lambda fact, key: tuple(fact[k] for k in key) if isinstance(key, tuple) else fact[key]  # noqa: E731
    for key in HELD[name]:
        if name == "sva" and key == "subject":
            continue
        sides = [{pick(fact, key) for fact in task.facts} for task in splits]
        if key == "template" and name == "calendar":
            sides = [{(f["unit"], f["template"]) for f in task.facts} for task in splits]
        assert not sides[0] & sides[1], key
    words = [{w for text in task.texts for w in re.findall(r"\w+", " ".join(text))} for task in splits]
    pools = (*lexicon.FEMALE, *lexicon.MALE, *lexicon.SPANS, *(w for pair in lexicon.PEOPLE for w in pair))
    assert not words[0] & words[1] & set(pools)  # in corrupted prompts neither
    prompts = [{text[0] for text in task.texts} for task in splits]
    assert not prompts[0] & prompts[1]


def test_held_out_tokens_of_induction_never_occur_in_training() -> None:
    sides = [tasks.load("induction", tokenizer=Pieces(), n=60, split=split) for split in ("train", "heldout")]
    ids = [{j for t in (task.clean, task.corrupted) for j in t.ids[t.mask].tolist()} - {0} for task in sides]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("size", [7, 12])
def test_every_row_and_column_of_a_calendar_has_cells_on_both_sides(size: int) -> None:
    cells = {(s, o): numbers.held(s, o) for s in range(size) for o in range(1, size)}
    for axis, values in ((0, range(size)), (1, range(1, size))):
        for value in values:
            sides = [held for cell, held in cells.items() if cell[axis] == value]
            assert (
                2 <= sum(sides) <= len(sides) - 2
            )  # another cell of the same row or column can be the corruption
    answers = {
        side: {(s + o) % size for (s, o), held in cells.items() if held == side} for side in (True, False)
    }
    assert answers == {True: set(range(size)), False: set(range(size))}


def test_a_smaller_task_is_the_beginning_of_a_larger_one_and_seeds_differ() -> None:
    for name in tasks.NAMES:
        small, large = (tasks.load(name, tokenizer=Pieces(), n=n, seed=4) for n in (7, 40))
        assert small.texts == large.texts[:7]
        assert small.texts != tasks.load(name, tokenizer=Pieces(), n=7, seed=5).texts


def test_words_that_are_cut_into_pieces_are_dropped() -> None:
    cut = lexicon.FEMALE[:40]
    tokenizer = Pieces(cut=cut)
    task = tasks.load("ioi", tokenizer=tokenizer, n=60)
    check_aligned(task, tokenizer, "abc")
    assert not {w for text in task.texts for w in re.findall(r"\w+", " ".join(text))} & set(cut)


def test_too_few_words_of_one_token_are_an_error_that_names_them() -> None:
    cut = (*lexicon.FEMALE, *lexicon.MALE[2:])
    with pytest.raises(
        InputError, match=r"only 2 of \d+ names are one token .* 5 are needed; dropped: 'Mary'.*read"
    ):
        tasks.load("ioi", tokenizer=Pieces(cut=cut), n=4)
    with pytest.raises(InputError, match="names of a day"):
        tasks.load("calendar", tokenizer=Pieces(cut=("Friday",)), n=4)


@pytest.mark.parametrize("pattern", [r" ?\d| ?[A-Za-z]+", r" ?\d{1,3}| ?[A-Za-z]+", r" ?\d+| ?[A-Za-z]+"])
def test_a_tokenizer_that_cuts_years_otherwise_has_no_greater_than(pattern: str) -> None:
    with pytest.raises(InputError, match="a century and two digits; this tokenizer gives"):
        tasks.load("greater_than", tokenizer=Pieces(pattern=pattern), n=2)


def test_pairs_that_merge_across_words_are_left_out_and_counted() -> None:
    # one name swallows the word behind it: alone it is one token, in most templates the pair is a token short
    glued = Pieces(pattern=r" Mary [a-z]+| ?\d\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\s")
    task = tasks.load("gender", tokenizer=glued, n=80)
    check_aligned(task, glued, "other_gender")
    assert not any("Mary" in " ".join(text) for text in task.texts)
    every = Pieces(pattern=r" [A-Z][a-z]*[a-m] [a-z]+| ?[A-Za-z]+| ?[^\sA-Za-z]|\s")
    with pytest.raises(InputError, match=r"\d+ did not fit this tokenizer, the first because"):
        tasks.load("gender", tokenizer=every, n=250, split="heldout")


def test_the_beginning_of_sequence_token_can_be_left_out() -> None:
    with_bos, without = (tasks.load("ioi", tokenizer=Pieces(), n=3, prepend_bos=p) for p in (None, False))
    assert with_bos.clean.ids[:, 1:].tolist() == without.clean.ids.tolist()
    assert with_bos.clean.ids[:, 0].tolist() == [0, 0, 0]
    assert (with_bos.describe()["bos"], without.describe()["bos"]) == (True, False)
