"""Task: its numbers against hand-written logits, its parts, its file, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import interp
from interp import tasks
from interp.errors import InputError, ModelError, StoreError
from interp.tasks import Task
from interp.tasks.pairs import Pair
from tests.interp.pieces import Pieces
from tests.models import loaded


def pair(clean, corrupted, answers, wrong, **facts) -> Pair:
    return Pair(clean=clean, corrupted=corrupted, answers=answers, wrong=wrong, facts=facts, texts=("c", "x"))


@pytest.fixture
def task() -> Task:
    """Three pairs over six tokens, of two, three and two tokens; answers {1}, {1, 2}, {3}."""
    pairs = [
        pair((5, 4), (5, 3), (1,), (2,), kind="A"),
        pair((5, 4, 3), (5, 4, 2), (1, 2), (3, 4, 5), kind="B"),
        pair((4, 5), (3, 5), (3,), (4,), kind="A"),
    ]
    return Task.of(pairs, name="made", measure="logit_difference", show="abcdef".__getitem__)


@pytest.fixture
def logits() -> torch.Tensor:
    """[row, pos, token], where only the last real position of a row holds anything but 100."""
    out = torch.full((3, 3, 6), 100.0)
    out[0, 1] = torch.tensor([9.0, 2.0, -1.0, 0.0, 0.0, 0.0])
    out[1, 2] = torch.tensor([0.0, 1.0, 4.0, 5.0, 0.5, 2.0])
    out[2, 1] = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    return out


def test_prompts_answers_and_positions_are_where_they_belong(task: Task) -> None:
    assert task.clean.ids.tolist() == [[5, 4, 0], [5, 4, 3], [4, 5, 0]]
    assert task.clean.mask.tolist() == task.corrupted.mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0]]
    assert task.position.tolist() == [1, 2, 1]
    assert task.answers.tolist() == [[1, -1], [1, 2], [3, -1]]
    assert task.wrong.tolist() == [[2, -1, -1], [3, 4, 5], [4, -1, -1]]
    assert len(task) == 3
    assert "logits" in task.convention


def test_the_logit_difference_is_the_best_right_answer_minus_the_best_wrong_one(task: Task, logits) -> None:
    assert task.metric(logits).tolist() == [3.0, -1.0, 0.0]  # 2 - (-1); 4 - 5; 1 - 1
    assert task.metric(logits).dtype == torch.float64


def test_probabilities_are_summed_over_the_sets(task: Task, logits) -> None:
    from dataclasses import replace

    values = logits[1, 2].double().exp()
    p = (values / values.sum()).tolist()
    difference = replace(task, measure="probability_difference").metric(logits)
    assert difference[1].item() == pytest.approx(p[1] + p[2] - p[3] - p[4] - p[5], abs=1e-12)  # rounding only
    assert replace(task, measure="log_probability").metric(logits)[1].item() == pytest.approx(
        math.log(p[1] + p[2]), abs=1e-12
    )
    assert task.mass(logits)[1].item() == pytest.approx(p[1] + p[2], abs=1e-12)


def test_a_tie_and_a_better_wrong_answer_are_misses(task: Task, logits) -> None:
    assert task.correct(logits).tolist() == [True, False, False]
    assert task.accuracy(logits) == pytest.approx(1 / 3)
    assert task.correct(logits, among="vocabulary").tolist() == [
        False,
        False,
        False,
    ]  # token 0 has 9 in row 0
    logits[0, 1, 0] = 1.9
    logits[1, 2, 3] = 3.9  # below the second answer
    assert task.correct(logits, among="vocabulary").tolist() == [True, True, False]
    assert task.chance == pytest.approx((1 / 2 + 2 / 5 + 1 / 2) / 3)


def test_other_positions_do_not_matter_and_final_logits_will_do(task: Task, logits) -> None:
    final = logits[torch.arange(3), task.position]
    assert torch.equal(task.metric(final), task.metric(logits))
    logits[0, 0] = -5.0
    assert task.metric(logits)[0].item() == 3.0


def test_the_metric_reaches_the_right_logits_with_its_gradient(task: Task, logits) -> None:
    logits.requires_grad_()
    task.metric(logits).sum().backward()
    assert logits.grad is not None
    expected = torch.zeros(3, 3, 6)
    for row, position, right, wrong in ((0, 1, 1, 2), (1, 2, 2, 3), (2, 1, 3, 4)):
        expected[row, position, right], expected[row, position, wrong] = 1.0, -1.0
    assert torch.equal(logits.grad, expected)


def test_rows_of_the_metric_are_the_rows_of_the_selected_task(task: Task, logits) -> None:
    whole = task.metric(logits)
    for rows in (slice(1, 3), [2, 0], torch.tensor([1])):
        part = logits[rows]
        assert torch.equal(task.metric(part, rows=rows), whole[rows])
        assert torch.equal(task.select(rows).metric(part), whole[rows])
    assert task.select(lambda fact: fact["kind"] == "A").clean.ids.tolist() == [[5, 4, 0], [4, 5, 0]]
    assert task.select(torch.tensor([False, True, False])).facts == ({"kind": "B"},)


def test_batches_cover_the_rows_in_order(task: Task) -> None:
    batches = list(task.batches(2))
    assert [len(clean) for clean, _, _ in batches] == [2, 1]
    assert torch.equal(torch.cat([clean.ids for clean, _, _ in batches]), task.clean.ids)
    assert torch.equal(torch.cat([corrupted.ids for _, corrupted, _ in batches]), task.corrupted.ids)
    assert torch.equal(torch.cat([answers for _, _, answers in batches]), task.answers)


def test_the_frame_shows_texts_answers_and_facts(task: Task) -> None:
    frame = task.to_frame()
    assert list(frame.columns) == ["clean", "corrupted", "answer", "wrong", "kind"]
    assert frame["answer"].tolist() == [["b"], ["b", "c"], ["d"]]
    assert frame["kind"].tolist() == ["A", "B", "A"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "logit_diference"}, "did you mean 'logit_difference'"),
        ({"facts": ({},)}, "do not belong together"),
        ({"corrupted": interp.Tokens.of([[5, 4], [5, 4], [3, 5, 1]])}, "pair 1 is not aligned"),
        ({"answers": torch.tensor([[1], [-1], [3]])}, "pair 1 has no answer"),
        ({"wrong": torch.tensor([[2], [3], [-1]])}, "pair 2 has no wrong answer"),
        ({"wrong": torch.tensor([[2], [2], [4]])}, "pair 1 has an answer that is also a wrong one"),
    ],
)
def test_parts_that_do_not_fit_are_refused(task: Task, change, message: str) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=message):
        replace(task, **change)


def test_logits_that_do_not_fit_are_refused(task: Task, logits) -> None:
    for wrong, message in (
        (logits[:2], "say which rows="),
        (logits[:, :2], "2 positions; the prompts have 3"),
        (logits[..., :4], "answers go up to token 5, the logits have 4"),
    ):
        with pytest.raises(InputError, match=message):
            task.metric(wrong)
    with pytest.raises(InputError, match="no row of task 'made'"):
        task.select(lambda fact: False)
    with pytest.raises(InputError, match="'wrong' or 'vocabulary'"):
        task.correct(logits, among="all")


def test_a_task_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    task = tasks.load("ioi", tokenizer=Pieces(), n=9, seed=3, split="heldout")
    back = Task.load(task.save(tmp_path / "deep" / "ioi.jsonl"))
    assert back.describe() == task.describe()
    assert back.clean.strings == task.clean.strings
    assert (back.facts, back.texts, back.name) == (task.facts, task.texts, task.name)
    assert back.reference is not None
    assert back.reference.edges == tasks.reference("ioi").edges
    left = Task.of(
        [pair((5, 4), (5, 3), (1,), (2,)), pair((4,), (3,), (1,), (2,))],
        name="l",
        measure="log_probability",
        side="left",
        pad=7,
    )
    assert Task.load(left.save(tmp_path / "left.jsonl")).clean.ids.tolist() == [[5, 4], [7, 4]]


def test_a_changed_torn_or_foreign_file_is_refused(task: Task, tmp_path: Path) -> None:
    path = task.save(tmp_path / "task.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    header = json.loads(lines[0])
    cases = {
        "hash": [lines[0], lines[1].replace(b'"answers":[1]', b'"answers":[3]'), *lines[2:]],
        "torn": [lines[0], lines[1][:20]],
        "not written by Task.save": lines[1:],
        "schema 99": [json.dumps(header | {"schema": 99}).encode()],
        "cannot be read": [lines[0], b'{"clean": "c"}'],
    }
    for message, content in cases.items():
        path.write_bytes(b"".join(content))
        with pytest.raises(StoreError, match=message):
            Task.load(path)
    with pytest.raises(StoreError, match="no task at"):
        Task.load(tmp_path / "absent")


def test_the_description_names_split_seed_and_a_hash_of_the_prompts() -> None:
    one, same, other = (tasks.load("sva", tokenizer=Pieces(), n=8, seed=seed) for seed in (1, 1, 2))
    told = one.describe()
    assert (told["n"], told["seed"], told["split"], told["corruption"]) == (8, 1, "train", "other_number")
    assert told["prompts_sha256"] == same.describe()["prompts_sha256"] != other.describe()["prompts_sha256"]
    json.dumps(told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "io"}, "no task 'io'; did you mean 'ioi'"),
        ({"split": "test"}, "no split 'test'.*train, heldout"),
        ({"corruption": "swop"}, "no corruption of ioi 'swop'; did you mean 'swap'"),
        ({"source": "french"}, "no source 'french'"),
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"tokenizer": None}, "give tokenizer="),
        ({"tokenizer": 7}, "a int is no tokenizer"),
        ({"name": "gender", "n": 10_000}, "gender: only [0-9]+ different prompts"),
        ({"source": "language"}, "does not know the language's word"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(options, message: str) -> None:
    chosen = {"name": "ioi", "tokenizer": Pieces(), "n": 2} | options
    with pytest.raises(InputError, match=message):
        tasks.load(chosen.pop("name"), **chosen)


def test_a_model_without_tokenizer_does_induction_in_token_ids() -> None:
    model = loaded("gpt2", "transformers")
    task = tasks.load("induction", model=model, n=5, split="heldout")
    assert task.clean.ids.max() < 50
    values, gradients = model.gradients(task.clean, task.metric, "blocks.0.hook_resid_pre")
    grid = gradients["blocks.0.hook_resid_pre"]
    assert values["blocks.0.hook_resid_pre"].shape == grid.shape
    assert bool((grid.norm(dim=-1) > 0)[task.clean.mask].all())  # every real token reaches the answer ...
    assert not grid[~task.clean.mask].any()  # ... and no padding does
    with pytest.raises(InputError, match="give tokenizer="):
        tasks.load("ioi", model=model)
    with pytest.raises(ModelError, match="does not predict the next token"):
        tasks.load("induction", model=loaded("bert", "transformers"))


def test_prompts_longer_than_the_context_are_refused() -> None:
    with pytest.raises(InputError, match="takes at most 24"):
        tasks.load("docstring", model=loaded("gpt2", "transformers"), tokenizer=Pieces(), n=2)
