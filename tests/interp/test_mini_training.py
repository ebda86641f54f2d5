"""The training of mini and its exam: bit for bit over kills, and scores with a closed form."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

import interp
from interp.errors import InputError, StoreError
from interp.runs.files import sha256_file
from interp.toys.exam import answer_rows, examine, failed, next_probabilities, repeats, scores
from interp.toys.heads import ablation_table, attention_scores
from interp.toys.language import encode, prompt_pairs, vocabulary
from interp.toys.train_mini import MiniRecipe, _seconds, train_mini

V = len(vocabulary())
TINY = MiniRecipe(n_layers=1, d_model=16, n_heads=2, length=16, batch=4, steps=24, again=6, warmup=5)


def uniform(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(*ids.shape, V)


def copier(ids: torch.Tensor) -> torch.Tensor:
    """Says what followed the last time, and nothing otherwise: the perfect induction head."""
    logits = torch.zeros(*ids.shape, V)
    for row in range(len(ids)):
        followed: dict[int, int] = {}
        line = ids[row].tolist()
        for i, token in enumerate(line):
            if token in followed:
                logits[row, i, followed[token]] = 20.0
            if i + 1 < len(line):
                followed[token] = line[i + 1]
    return logits


def test_a_model_that_knows_nothing_gets_what_chance_gives() -> None:
    table = examine(uniform, n=60)
    years = prompt_pairs("greater_than", n=60, seed=1000)
    expected = sum(len(pair.answers) for pair in years) / 60 / V
    assert table["tasks"]["greater_than"]["score"] == pytest.approx(expected, abs=1e-12)
    assert table["fluency"]["loss_nats"] == pytest.approx(math.log(V), abs=1e-9)
    assert table["repeats"]["ratio"] == pytest.approx(1.0, abs=1e-9)
    assert table["tasks"]["gender"]["likeliest"] == 0.0
    assert table["tasks"]["sva"]["score"] == 0.0  # as much for the one number as for the other: not more
    assert len(failed(table)) > 7


def test_a_copier_passes_on_repeats_and_fails_on_the_calendar() -> None:
    table = examine(copier, n=30)
    assert table["tasks"]["induction"]["score"] == table["tasks"]["induction"]["likeliest"] == 1.0
    assert list(table["tasks"]["calendar"]["kinds"]) == ["cells", "day", "month"]
    assert table["repeats"]["ratio"] < 0.01
    assert table["tasks"]["calendar"]["score"] < 0.2


def test_scores_by_hand() -> None:
    pairs = prompt_pairs("ioi", n=4, seed=3)
    prompts = answer_rows(pairs)
    last = prompts.lengths - 1
    assert prompts.ids[0, : last[0] + 1].tolist() == [0, *encode(pairs[0].clean)]
    right = [encode(pair.answers)[0] for pair in pairs]

    def knows_two(ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*ids.shape, V)
        for row in (0, 2):
            logits[row, last[row], right[row]] = 1.0
        return logits

    assert scores(next_probabilities(knows_two, pairs), "ioi", pairs).tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.slow
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path) -> None:
    whole = train_mini(tmp_path / "whole", recipe=TINY, checkpoint_every=10)
    script = (
        "from interp.toys.train_mini import *\n"
        f"recipe = MiniRecipe(**{TINY.__dict__!r})\n"
        f"train_mini({str(tmp_path / 'cut')!r}, recipe=recipe, checkpoint_every=10, resume=True)"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", script])
        place = tmp_path / "cut" / "checkpoints"
        seen = len(list(place.glob("step-????????"))) if place.exists() else 0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if place.exists() and len(list(place.glob("step-????????"))) > seen:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    cut = train_mini(tmp_path / "cut", recipe=TINY, checkpoint_every=10, resume=True)
    assert sha256_file(cut / "model.safetensors") == sha256_file(whole / "model.safetensors")
    told = [
        [
            {k: v for k, v in json.loads(line).items() if k != "cpu_seconds"}
            for line in (tmp_path / run / "metrics.jsonl").read_text("utf-8").splitlines()
        ]
        for run in ("whole", "cut")
    ]
    assert told[0] == told[1]
    assert [line["step"] for line in told[0]] == [10, 20, 30]
    kept = sorted(path.name for path in (tmp_path / "cut" / "trajectory").iterdir())
    assert kept == sorted(path.name for path in (tmp_path / "whole" / "trajectory").iterdir())
    assert kept[0] == "step-000000"


def test_a_run_of_another_recipe_or_seed_is_refused(tmp_path) -> None:
    recipe = replace(TINY, steps=4, again=0)
    train_mini(tmp_path, recipe=recipe, checkpoint_every=2)
    with pytest.raises(InputError, match="already holds a run"):
        train_mini(tmp_path, recipe=recipe)
    with pytest.raises(StoreError, match="its seed is 0, now 1"):
        train_mini(tmp_path, recipe=recipe, seed=1, resume=True)
    with pytest.raises(StoreError, match="belongs to another run: its recipe"):
        train_mini(tmp_path, recipe=replace(recipe, lr=1e-3), resume=True)
    with pytest.raises(InputError, match="seeds 0 to 999 are for training, got 1000"):
        train_mini(tmp_path / "new", recipe=recipe, seed=1000)
    with pytest.raises(InputError, match="checkpoint_every must be a whole number of at least 1, got 0"):
        train_mini(tmp_path / "new", recipe=recipe, checkpoint_every=0)
    with pytest.raises(InputError, match="lr must be a finite number"):
        replace(recipe, lr=float("nan"))
    with pytest.raises(InputError, match="decay_share is a share, from 0 to 1; got 2"):
        replace(recipe, decay_share=2)
    with pytest.raises(InputError, match="not divisible by n_heads 3"):
        MiniRecipe(n_heads=3)


def test_what_is_saved_loads_with_its_tokenizer_and_is_what_was_trained(tmp_path) -> None:
    folder = train_mini(tmp_path, recipe=replace(TINY, steps=3, again=0))
    model = interp.load(str(folder))
    tokens = model.tokens("When Alice and Bob went to the park, Bob gave the ball to")
    assert tokens.strings[0][:4] == ["<bos>", "When", "Alice", "and"]
    assert model.n_ctx == TINY.length
    assert (model.n_layers, model.n_heads, model.d_model) == (1, 2, 16)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    recipe = MiniRecipe(steps=1000, again=100, warmup=10, decay_share=0.5, decay_share_again=0.5, lr=1.0)
    assert recipe.rate(1) == pytest.approx(0.1)
    assert recipe.rate(10) == recipe.rate(400) == 1.0
    assert recipe.rate(751) == pytest.approx(0.5)
    assert recipe.rate(1000) == pytest.approx(0.02)
    assert recipe.rate(1005) == pytest.approx(1 / 3)
    assert recipe.rate(1010) == recipe.rate(1050) == pytest.approx(2 / 3)
    assert recipe.rate(1100) == pytest.approx(2 / 3 * 0.02)


def test_the_clock_of_a_resumed_run_counts_every_part() -> None:
    assert _seconds([1.0, 5.0, 2.0, 3.0]) == 8.0
    assert _seconds([1.0, 5.0]) == 5.0


def test_attention_scores_and_ablations_are_what_loops_over_rows_give(tmp_path) -> None:
    folder = train_mini(tmp_path, recipe=replace(TINY, length=64, steps=2, again=0, n_layers=2))
    model = interp.load(str(folder), dtype=torch.float32)
    found = attention_scores(model, n=3)
    ids = repeats(3)
    patterns = [
        model.capture(ids, f"blocks.{i}.attn.hook_pattern")[f"blocks.{i}.attn.hook_pattern"] for i in range(2)
    ]
    half = (ids.shape[1] - 1) // 2
    for layer in range(2):
        for head in range(2):
            p = patterns[layer][:, head].double()
            want = {
                "previous": [p[r, half + i, half + i - 1] for r in range(3) for i in range(1, half + 1)],
                "duplicate": [p[r, half + i, i] for r in range(3) for i in range(1, half + 1)],
                "induction": [p[r, half + i, i + 1] for r in range(3) for i in range(1, half + 1)],
            }
            for kind, values in want.items():
                assert found[kind][layer, head].item() == pytest.approx(
                    float(torch.stack(values).mean()), abs=1e-6
                )
    looks = []
    for pair in prompt_pairs("ioi", n=3, seed=1000):
        at = 1 + pair.clean.index(pair.facts["indirect"])
        site = "blocks.1.attn.hook_pattern"
        one = model.capture(torch.tensor([[0, *encode(pair.clean)]]), site)[site]
        looks.append(one[0, 1, -1, at].double())
    assert found["name_mover"][1, 1].item() == pytest.approx(float(sum(looks) / 3), abs=1e-6)
    table = ablation_table(model, n=4)
    assert set(table) == {"ioi", "greater_than", "docstring", "gender", "sva", "induction", "calendar"}
    assert all(len(row["without"]) == 2 and len(row["without"][0]) == 2 for row in table.values())
