"""The labelled language: what it says is true, its labels are right, and what is held out is never said."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

from interp.errors import InputError
from interp.toys.language import (
    CORRUPTIONS,
    LABELS,
    MIXTURE,
    TASKS,
    Corpus,
    document,
    encode,
    prompt_pairs,
    tokenizer_json,
    vocabulary,
)
from interp.toys.language.corpus import BOS
from interp.toys.language.writing import Dice, Page

IGNORE = -100
DOCUMENTS = [document(7, i) for i in range(6000)]
OF = {task: [one for one in DOCUMENTS if one.task == task] for task in MIXTURE}
DAYS, MONTHS = LABELS["day"], LABELS["month"]
_NAMED = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
COUNTS = [*_NAMED.split(), "eighteen", "nineteen", "twenty"]


def test_the_vocabulary_has_the_promised_size_and_every_word_of_it_is_said() -> None:
    words = vocabulary()
    assert 300 <= len(words) <= 800
    assert len(set(words)) == len(words)
    assert words[:3] == ("<bos>", "<pad>", "<unk>")
    said = set(itertools.chain.from_iterable(one.words for one in DOCUMENTS))
    assert said == set(words[3:])


def test_a_document_is_the_same_whoever_asks_and_differs_by_seed_and_number() -> None:
    assert document(3, 11).text == document(3, 11).text
    texts = {document(seed, i).text for seed in range(3) for i in range(50)}
    assert len(texts) > 140  # short documents may coincide


def test_rows_go_on_from_any_position_and_labels_lie_where_their_tokens_lie() -> None:
    whole = Corpus(5, length=32).rows(40)
    stream = Corpus(5, length=32)
    first = stream.rows(15)
    rest = Corpus(5, length=32, position=stream.position)
    ids, labels = rest.labelled(25)
    np.testing.assert_array_equal(whole, np.concatenate([first, ids]))
    assert set(labels) == set(LABELS)
    assert all(values.shape == ids.shape for values in labels.values())
    starts = ids == BOS
    assert starts[:, 0].all()
    assert all((values[starts] == IGNORE).all() for values in labels.values())
    row = ids[0].tolist()
    end = row.index(BOS, 1) if BOS in row[1:] else len(row)
    one = document(5, stream.position)
    assert row[1:end] == one.ids.tolist()[: end - 1]
    for name, values in one.labels.items():
        assert labels[name][0, 1:end].tolist() == values.tolist()[: end - 1], name


def test_every_label_is_there_for_every_token_and_within_its_range() -> None:
    for one in DOCUMENTS[:500]:
        labels = one.labels
        assert set(labels) == set(LABELS)
        for name, values in labels.items():
            assert len(values) == len(one.ids)
            known = LABELS[name]
            top = len(known) if known else 100
            assert ((values == IGNORE) | ((values >= 0) & (values < top))).all(), name
        assert (labels["pos"] != IGNORE).all()
        assert (labels["task"] == list(MIXTURE).index(one.task)).all()


def test_words_that_share_a_token_get_their_part_of_speech_from_the_context() -> None:
    seen = {"walk": set(), "her": set(), "that": set()}
    for one in DOCUMENTS:
        for word, pos in zip(one.words, one.labels["pos"], strict=True):
            if word in seen:
                seen[word].add(LABELS["pos"][pos])
    assert seen["walk"] == {"noun", "verb"}
    assert seen["her"] == {"determiner", "pronoun"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: document(0, 1 << 40), "number must be a whole number of at least 0 and below 1099511627776"),
        (lambda: document(-1, 0), "seed must be a whole number of at least 0, got -1"),
        (lambda: Corpus(-2), "seed must be a whole number of at least 0, got -2"),
        (lambda: Corpus(0).rows(-1), "n must be a whole number of at least 0, got -1"),
        (lambda: prompt_pairs("ioi", n=0), "n must be a whole number of at least 1, got 0"),
        (lambda: prompt_pairs("ioy", n=2), "no task 'ioy' in the language.*'ioi'"),
        (lambda: encode(["parc"]), "'parc' is no word of the language.*'park'"),
    ],
)
def test_bad_calls_name_what_is_wrong(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_an_attractor_between_subject_and_verb_differs_from_the_subject_half_of_the_time() -> None:
    differ = []
    for one in OF["sva"]:
        at = one.page.answer
        numbers = one.labels["number"]
        noun = [i for i in range(at) if LABELS["pos"][one.labels["pos"][i]] == "noun"]
        differ.append(numbers[noun[0]] != numbers[noun[1]])
    assert abs(np.mean(differ) - 0.5) < 4 * 0.5 / math.sqrt(len(differ))


def test_calendar_sentences_are_true() -> None:
    for one in OF["calendar"]:
        circle, named = (DAYS, [w for w in one.words if w in DAYS])
        if not named:
            circle, named = (MONTHS, [w for w in one.words if w in MONTHS])
        base, answer = named
        n = next(COUNTS.index(w) + 1 for w in one.words if w in COUNTS)
        back = "before" in one.words or "ago" in one.words
        assert circle.index(answer) == (circle.index(base) + (-n if back else n)) % len(circle), one.text


def test_spans_of_years_end_later_and_indirect_objects_are_the_other_person() -> None:
    for one in OF["greater_than"]:
        century, start, again, end = [int(w) for w in one.words if w.isdigit()]
        assert century == again
        assert end > start
    for one in OF["ioi"]:
        people = [w for w, p in zip(one.words, one.labels["pos"], strict=True) if LABELS["pos"][p] == "name"][
            :4
        ]
        a, b, subject, indirect = people
        assert indirect in (a, b)
        assert indirect != subject


def test_the_second_copy_of_a_repeat_is_the_first() -> None:
    for one in OF["induction"]:
        ids = one.ids.tolist()
        start = ids.index(ids[0], 1)
        assert ids[start:] == ids[: len(ids) - start]
        assert len(set(ids[:start])) == start


def test_a_choice_that_nobody_sees_costs_nothing() -> None:
    """Two of three drawn people are named: all that is said has probability 1/20, whoever the third is."""
    dice = Dice(2)
    dice.some("abcde", 3)
    dice.unsaid(3)
    assert dice.nats == pytest.approx(math.log(20), abs=1e-12)


def test_a_choice_costs_minus_its_log_probability() -> None:
    dice = Dice(1)
    dice.pick("abcd")
    dice.some("abcde", 2)
    dice.weighted((0, 1), (1.0, 1.0))
    dice.whole(3, 12)
    assert dice.nats == pytest.approx(math.log(4) + math.log(20) + math.log(2) + math.log(10), abs=1e-12)


def test_the_probability_that_a_document_states_is_the_share_of_times_it_comes_up() -> None:
    """All calendar sentences together have probability 1, and their counts fit (chi squared)."""
    n, counts, nats = 25_000, Counter(), {}
    for i in range(n):
        dice, page = Dice(i), Page()
        MIXTURE["calendar"][1](page, dice)
        text = " ".join(word.text for word in page.words)
        counts[text] += 1
        nats[text] = dice.nats
    p = {text: math.exp(-value) for text, value in nats.items()}
    cells = 7 * 20 * 2 + 12 * 20 * 2
    assert len(p) == 2 * (cells - cells // 8)  # every trained cell was said in both its forms
    assert sum(p.values()) == pytest.approx(1.0, abs=1e-9)
    chi2 = sum((counts[text] - n * p[text]) ** 2 / (n * p[text]) for text in p)
    assert abs(chi2 - len(p)) < 4 * math.sqrt(2 * len(p))  # four standard deviations of chi squared


# -- what is held out ------------------------------------------------------------------------------------------------


def _heldout(task: str, kind: str) -> list:
    return [p for p in prompt_pairs(task, n=3000, seed=1) if p.facts["heldout"] == kind]


@pytest.mark.parametrize(("task", "fact"), [("ioi", "a"), ("gender", "name")])
def test_held_out_names_never_stand_in_their_construct_but_elsewhere(task: str, fact: str) -> None:
    names = {pair.facts[fact] for pair in _heldout(task, "names")}
    assert len(names) == 16
    assert not names & set(itertools.chain.from_iterable(one.words for one in OF[task]))
    elsewhere = Counter(w for one in OF["story"] + OF["plain"] + OF["opinion"] for w in one.words)
    assert all(elsewhere[name] >= 5 for name in names)


def test_held_out_templates_never_occur() -> None:
    trained = {
        (one.page.words[0].text, *re.findall(r"gave|handed|decided|brought|wanted|offered", one.text))
        for one in OF["ioi"]
    }
    assert not any("offered" in key or "While" in key for key in trained)
    held = _heldout("ioi", "templates")
    seen = set()
    for one in OF["ioi"]:
        names = {
            w
            for w, p in zip(one.words, one.labels["pos"], strict=True)
            if LABELS["pos"][p] in ("name", "noun")
        }
        seen.add(" ".join("_" if w in names else w for w in one.words[: one.page.answer]))
    for pair in held:
        slots = {pair.facts[k] for k in ("a", "b", "subject", "place", "object")}
        assert " ".join("_" if w in slots else w for w in pair.clean) not in seen
    assert not any("continued from" in one.text for one in OF["greater_than"])
    assert not any(" beside " in f" {one.text} " for one in OF["sva"])
    assert not any(" when " in one.text and "brought" in one.text for one in OF["gender"])
    assert sum("beside" in one.words for one in DOCUMENTS) > 100
    assert sum("offered" in one.words for one in DOCUMENTS) > 50


def test_held_out_nouns_years_and_arguments_never_stand_in_their_slot() -> None:
    events = {pair.facts["event"] for pair in _heldout("greater_than", "nouns")}
    assert not events & {one.words[1] for one in OF["greater_than"]}
    years = {(pair.facts["century"], pair.facts["year"]) for pair in _heldout("greater_than", "years")}
    trained = set()
    for one in OF["greater_than"]:
        century, start, *_ = [int(w) for w in one.words if w.isdigit()]
        trained.add((century, start))
    assert len(years) > 50
    assert not years & trained
    arguments = set(
        itertools.chain.from_iterable(p.facts["arguments"] for p in _heldout("docstring", "names"))
    )
    assert not arguments & set(itertools.chain.from_iterable(one.words for one in OF["docstring"]))


def test_held_out_subjects_never_have_an_attractor_anywhere_in_the_text() -> None:
    heads = set(itertools.chain.from_iterable(pair.facts["head"] for pair in _heldout("sva", "nouns")))
    links = {"near", "behind", "with", "under", "beside", "that"}
    for one in DOCUMENTS:
        if one.task in ("sva", "plain"):
            for head, link in itertools.pairwise(one.words):
                assert not (head in heads and link in links and one.words[0] != "Who"), one.text
    plain = Counter(word for one in OF["plain"] for word in one.words)
    assert all(plain[head] for head in heads)


def test_held_out_shifts_of_the_calendar_are_never_said_in_any_form() -> None:
    cells = set()
    for pair in _heldout("calendar", "cells"):
        cells.add((pair.facts["unit"], pair.facts["base"], pair.facts["offset"], pair.facts["sign"]))
    assert len(cells) > 50
    for one in OF["calendar"]:
        unit, circle = ("day", DAYS) if any(w in DAYS for w in one.words) else ("month", MONTHS)
        base = next(circle.index(w) for w in one.words if w in circle)
        n = next(COUNTS.index(w) + 1 for w in one.words if w in COUNTS)
        assert (unit, base, n, -1 if {"before", "ago"} & set(one.words) else 1) not in cells, one.text


# -- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_aligned_and_differ_and_the_same_seed_gives_the_same(task: str) -> None:
    for corruption in CORRUPTIONS[task]:
        for split in ("train", "heldout"):
            pairs = prompt_pairs(task, n=40, split=split, seed=2, corruption=corruption)
            more = prompt_pairs(task, n=60, split=split, seed=2, corruption=corruption)
            assert [p.clean for p in pairs] == [p.clean for p in more[:40]]
            for pair in pairs:
                assert len(pair.clean) == len(pair.corrupted)
                assert pair.clean != pair.corrupted
                assert not set(pair.answers) & set(pair.wrong)
                encode([*pair.clean, *pair.corrupted, *pair.answers, *pair.wrong])
                assert bool(pair.facts["heldout"]) == (split == "heldout")
    assert prompt_pairs(task, n=3, seed=3)[0].clean != prompt_pairs(task, n=3, seed=4)[0].clean


def test_prompts_by_hand() -> None:
    pair = next(
        p for p in prompt_pairs("ioi", n=50, split="train", corruption="swap") if p.facts["kind"] == "ABBA"
    )
    a, b = pair.facts["a"], pair.facts["b"]
    assert [w for w in pair.clean if w in (a, b)] == [a, b, b]
    assert [w for w in pair.corrupted if w in (a, b)] == [a, b, a]
    assert (pair.answers, pair.wrong) == ((a,), (b,))
    spans = prompt_pairs("greater_than", n=1)[0]
    year = spans.facts["year"]
    assert spans.answers == tuple(f"{y:02d}" for y in range(year + 1, 100))
    assert spans.wrong == tuple(f"{y:02d}" for y in range(year + 1))
    assert "01" in spans.corrupted
    agree = prompt_pairs("sva", n=1)[0]
    assert set(agree.answers[:3]) in ({"is", "was", "has"}, {"are", "were", "have"})


def test_wrong_requests_name_the_nearest_right_one() -> None:
    with pytest.raises(InputError, match=r"no task 'iio' in the language.*ioi"):
        prompt_pairs("iio", n=1)
    with pytest.raises(InputError, match="no corruption 'ab'.*abc"):
        prompt_pairs("ioi", n=1, corruption="ab")
    with pytest.raises(InputError, match="no split 'test'"):
        prompt_pairs("ioi", n=1, split="test")
    with pytest.raises(InputError, match="at least 1, got 0"):
        prompt_pairs("ioi", n=0)
    with pytest.raises(InputError, match=r"'Alize' is no word of the language.*Alice"):
        encode(["Alize"])
    with pytest.raises(InputError, match="at least 2 tokens, got length 1"):
        Corpus(0, length=1)


def test_the_tokenizer_reads_plain_writing_as_the_language_does(tmp_path) -> None:
    from tokenizers import Tokenizer

    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for one in DOCUMENTS[:300]:
        assert tokenizer.encode(one.text).ids == one.ids.tolist()
    loose = tokenizer.encode(
        'The war lasted from the year 1732 to the year 17, and Bob (a friend) said "zzz".'
    )
    assert loose.tokens[5:8] == ["year", "17", "32"]
    assert loose.tokens[-3:] == ["<unk>", '"', "."]
    assert tokenizer.encode("<bos> The").ids == [BOS, *encode(["The"])]
