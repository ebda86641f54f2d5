"""The embedded language model: what its card says is so, on this machine, from the files that ship."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

import interp
from interp.errors import CheckError, InputError, ModelError
from interp.toys import mini as home
from interp.toys.exam import PASS, examine, examine_model, failed, repeats
from interp.toys.language import LABELS, MIXTURE, TASKS, document
from interp.toys.mini_card import page
from interp.toys.repeats import head_scores
from interp.toys.train_mini import mini_checkpoints

SMALL = Path(__file__).parent.parent / "data" / "mini_small"


@pytest.fixture(scope="module")
def model():
    return interp.load("mini")


@pytest.fixture(scope="module")
def embedded():
    return interp.toys.embedded("mini")


def test_it_loads_by_name_with_its_tokenizer_in_float32(model) -> None:
    assert (model.n_layers, model.n_heads, model.d_model, model.n_ctx) == (4, 4, 128, 64)
    assert model.dtype == torch.float32
    assert model.backend == "transformers"
    tokens = model.tokens("When Alice and Bob went to the park, Bob gave the ball to")
    assert tokens.strings[0][:3] == ["<bos>", "When", "Alice"]
    best = model.logits(tokens)[0, -1].argmax()
    assert interp.toys.language.vocabulary()[best] == "Alice"


def test_its_files_are_small_and_name_no_other_class(embedded) -> None:
    sizes = {path.name: path.stat().st_size for path in home.HOME.iterdir()}
    assert sum(sizes.values()) < 8_000_000
    assert set(sizes) == {
        "CARD.md", "card.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert type(embedded.module).__name__ == "GPT2LMHeadModel"


def test_it_passes_its_exam_on_held_out_combinations(model, embedded) -> None:
    """Fewer prompts than the card's; each score lies within 5 standard errors of the card's."""
    table = examine_model(model, n=200)
    assert failed(table) == []
    stated = embedded.card["exam"]["tasks"]
    assert set(table["tasks"]) == set(TASKS) == set(PASS)
    for task, row in table["tasks"].items():
        p = stated[task]["score"]
        assert abs(row["score"] - p) <= 5 * math.sqrt(max(p * (1 - p), 0.005) / 200), task
    assert abs(table["fluency"]["loss_nats"] - embedded.card["exam"]["fluency"]["loss_nats"]) < 0.1


def test_the_card_states_what_was_asked_and_nothing_falls_short(embedded) -> None:
    card = embedded.card
    assert failed(card["exam"]) == []
    assert failed(card["other_seed"]["exam"]) == []
    assert card["seed"] != card["other_seed"]["seed"]
    for task, row in card["exam"]["tasks"].items():
        assert abs(row["score"] - card["other_seed"]["exam"]["tasks"][task]["score"]) < 0.03, task
    assert card["exam"]["tasks"]["ioi"]["n"] >= 1000
    assert (home.HOME / "CARD.md").read_text("utf-8") == page(card)


@pytest.mark.slow
def test_no_kind_of_document_is_predicted_better_than_its_entropy_allows(model) -> None:
    """A model below the floor would mean that the floor counts choices which the text does not show."""
    spent: dict[str, list[tuple[float, float]]] = {}
    documents = [one for one in (document(2000, i) for i in range(3000)) if len(one.ids) < 63]
    rows = [[0, *one.ids.tolist(), 0] for one in documents]  # that it ends is one of the choices
    for start in range(0, len(rows), 250):
        part = interp.Tokens.of(rows[start : start + 250], pad=1)
        logits = model.logits(part.ids)[:, :-1].transpose(1, 2).double()
        losses = torch.nn.functional.cross_entropy(logits, part.ids[:, 1:], reduction="none")
        for one, loss in zip(documents[start:], (losses * part.mask[:, 1:]).sum(1).tolist(), strict=False):
            spent.setdefault(one.task, []).append((loss, one.nats))
    assert set(spent) == set(MIXTURE)
    for task, pairs in spent.items():
        above = torch.tensor([loss - floor for loss, floor in pairs], dtype=torch.float64)
        assert float(above.mean()) > -3.5 * float(above.std()) / len(above) ** 0.5, task
        assert float(above.mean()) < 4.0, task


@pytest.mark.slow
def test_the_card_can_be_measured_again_to_the_last_prompt(model, embedded) -> None:
    table = examine(model.logits, n=1000)
    for task, row in embedded.card["exam"]["tasks"].items():
        # another processor may round one prompt in a thousand to the other side
        assert table["tasks"][task]["score"] == pytest.approx(row["score"], abs=2e-3), task


def test_its_previous_token_and_induction_heads_are_those_of_the_card(model, embedded) -> None:
    found = head_scores(model, repeats(40))
    stated = embedded.card["heads"]["attention"]
    for kind in ("previous", "induction", "duplicate"):
        assert torch.allclose(getattr(found, kind), torch.tensor(stated[kind]).double(), atol=0.05), kind
    assert found.best("induction")[2] > 0.6
    assert found.best("previous")[2] > 0.4  # it shares its attention with other duties


def test_every_task_of_the_field_is_asked_of_it_in_its_own_words(model) -> None:
    for name in TASKS:
        task = interp.tasks.load(name, model=model, split="heldout", n=60)
        assert task.provenance["source"] == "language"
        logits = model.logits(task.clean)
        assert task.accuracy(logits) > 0.9, name
        difference = task.metric(logits) - task.metric(model.logits(task.corrupted))
        assert float(difference.mean()) > 0, name


def test_a_sample_comes_with_every_label_and_the_same_seed_gives_the_same(embedded) -> None:
    sample = embedded.sample(640, seed=3)
    assert sample.tokens.ids.shape == (10, 64)
    assert set(sample.labels) == set(LABELS)
    assert all(grid.shape == sample.tokens.ids.shape for grid in sample.labels.values())
    assert torch.equal(sample.tokens.ids, embedded.inputs(10, seed=3))
    assert sample.tokens.strings[0][0] == "<bos>"
    with pytest.raises(InputError, match="at least 1, got 0"):
        embedded.inputs(0)


def test_damaged_files_are_told(tmp_path, monkeypatch) -> None:
    shutil.copytree(home.HOME, tmp_path / "mini")
    monkeypatch.setattr(home, "HOME", tmp_path / "mini")
    whole = (tmp_path / "mini" / "model.safetensors").read_bytes()
    (tmp_path / "mini" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckError, match=r"the files of 'mini' are damaged.*reinstall"):
        interp.load("mini")
    (tmp_path / "mini" / "card.json").write_text("{")
    with pytest.raises(CheckError, match="not JSON"):
        interp.load("mini")


def test_checkpoints_over_training_load_and_get_better() -> None:
    found = mini_checkpoints(folder=SMALL, size="small")
    assert len(found) == 2
    losses = [
        examine(interp.load(str(folder), dtype=torch.float32).logits, n=30)["fluency"]["loss_nats"]
        for folder in found.values()
    ]
    assert losses[0] > losses[1] + 1


def test_a_size_that_is_not_there_and_the_empty_name_are_told(tmp_path) -> None:
    with pytest.raises(InputError, match="no size 'smal'.*'small'"):
        mini_checkpoints(size="smal", folder=tmp_path)
    with pytest.raises(ModelError, match="empty name"):
        interp.load("")
    with pytest.raises(ModelError, match="cannot load model 'mimi'.*'mini'"):
        interp.load("mimi")


def test_missing_checkpoints_come_with_the_command_that_makes_them(tmp_path) -> None:
    with pytest.raises(InputError, match=r"python -m interp.toys.train_mini --seed 3 --size mini --out"):
        mini_checkpoints(3, folder=tmp_path)
