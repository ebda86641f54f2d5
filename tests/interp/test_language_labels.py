"""Labels of the language that need the sentence around a word: agreement, depth, participants, mood."""

from __future__ import annotations

from collections import Counter

from interp.toys.language import LABELS, MIXTURE, document

IGNORE = -100
DOCUMENTS = [document(7, i) for i in range(6000)]
OF = {task: [one for one in DOCUMENTS if one.task == task] for task in MIXTURE}


def test_verbs_agree_with_the_subject_that_waits_for_them() -> None:
    pairs = Counter()
    for one in DOCUMENTS:
        labels = one.labels
        for i in range(1, len(one.ids)):
            pos = LABELS["pos"][labels["pos"][i]]
            waiting, number = labels["agreement"][i - 1], labels["number"][i]
            if (
                pos in ("verb", "auxiliary")
                and one.task in ("sva", "events", "plain")
                and waiting != IGNORE
                and number != IGNORE
            ):
                pairs[waiting, number] += 1
    assert pairs[0, 0] > 200
    assert pairs[1, 1] > 200
    assert set(pairs) == {(0, 0), (1, 1)}


def test_a_question_and_an_object_wait_for_no_verb() -> None:
    objects = 0
    for one in OF["plain"]:
        waiting = one.labels["agreement"]
        pos = [LABELS["pos"][p] for p in one.labels["pos"]]
        start = 0
        for i, word in enumerate(one.words):
            if word == "?":
                assert (waiting[start : i + 1] == IGNORE).all() or "that" in one.words[start:i], one.text
            if word in ".?":
                assert waiting[i] == IGNORE, one.text
                start = i + 1
            if (
                i + 1 < len(pos)
                and pos[i] in ("noun", "name")
                and one.words[i + 1] == "."
                and waiting[i] == IGNORE
            ):
                objects += 1
    assert objects > 100


def test_infinitives_have_neither_number_nor_tense() -> None:
    seen = 0
    for one in OF["plain"]:
        for i, word in enumerate(one.words[:-1]):
            if word == "will":
                assert one.labels["number"][i + 1] == one.labels["tense"][i + 1] == IGNORE
                assert LABELS["pos"][one.labels["pos"][i + 1]] == "verb"
                seen += 1
    assert seen > 100


def test_a_subordinate_opening_is_one_clause_deeper_than_what_follows_it() -> None:
    for one in OF["ioi"]:
        depth, comma = one.labels["depth"], one.words.index(",") if "," in one.words else None
        if one.words[0] in ("When", "While", "After", "Before") and comma is not None:
            assert depth[0] == depth[comma] == depth[-1] == 0, one.text
            assert (depth[1:comma] == 1).all(), one.text
    for one in OF["gender"]:
        depth, at = one.labels["depth"], one.page.answer
        assert depth[0] == depth[-1] == 0
        assert depth[at] == int(one.words[at - 1] != ","), one.text
        if one.words[at - 1] == ",":
            assert (depth[1 : at - 1] == 1).all(), one.text


def test_a_noun_that_does_not_count_as_a_subject_is_another_participant() -> None:
    """The same noun twice, once as an attractor, is spoken of as two."""
    for one in OF["sva"]:
        entity, pos = one.labels["entity"], one.labels["pos"]
        nouns = [i for i in range(one.page.answer) if LABELS["pos"][pos[i]] == "noun"]
        assert entity[nouns[0]] != entity[nouns[1]]


def test_an_adjective_behind_but_has_the_mood_it_brings() -> None:
    turned = 0
    for one in OF["opinion"]:
        sentiment, mood = one.labels["sentiment"], one.labels["mood"]
        both = (sentiment != IGNORE) & (mood != IGNORE)
        assert (sentiment[both] == mood[both]).all(), one.text
        turned += "but" in one.words
    assert turned > 20


def test_a_thanked_person_is_the_one_who_gave() -> None:
    seen = 0
    for one in OF["ioi"]:
        if "thanked" in one.words:
            at = one.words.index("thanked") + 1
            entity = one.labels["entity"]
            names = [i for i, p in enumerate(one.labels["pos"]) if LABELS["pos"][p] == "name"]
            assert entity[at] != IGNORE
            assert entity[at] != entity[at - 2]
            giver = names[2]
            assert entity[at] == entity[giver]
            seen += 1
    assert seen > 50


def test_depth_counts_the_open_brackets() -> None:
    for one in OF["brackets"]:
        opened, expected, stack = 0, [], []
        for word in one.words:
            if word in ")]":
                assert stack.pop() == {")": "(", "]": "["}[word]
                opened -= 1
            expected.append(opened)
            if word in "([":
                stack.append(word)
                opened += 1
        assert not stack
        inside = [d for w, d in zip(one.words, one.labels["depth"], strict=True) if w not in ")]"]
        assert inside == [d for w, d in zip(one.words, expected, strict=True) if w not in ")]"]


def test_pronouns_have_the_gender_and_the_entity_of_their_name() -> None:
    n = 0
    for one in OF["gender"] + OF["story"]:
        labels = one.labels
        gender = {}
        for word, pos, entity, sex in zip(
            one.words, labels["pos"], labels["entity"], labels["gender"], strict=True
        ):
            kind = LABELS["pos"][pos]
            if kind == "name":
                assert gender.setdefault(entity, sex) == sex
            elif kind == "pronoun" and word.lower() in ("she", "he"):
                assert gender[entity] == sex == int(word.lower() == "he")
                n += 1
    assert n > 500


def test_the_mood_of_a_story_is_that_of_its_sentiment_words() -> None:
    for one in OF["story"]:
        sentiments = one.labels["sentiment"]
        moods = one.labels["mood"]
        felt = set(sentiments[sentiments != IGNORE].tolist())
        assert felt == set(moods[moods != IGNORE].tolist())
        assert len(felt) == 1
