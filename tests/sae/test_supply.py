"""Rows that flow through the mixing buffer: none lost, none twice, and a resumed run draws the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import interp
import sae
from interp.errors import InputError
from sae.supply import Flow

SHORT = sae.TrainConfig(d_sae=16, k=2, steps=30, batch_size=16, checkpoint_every=10, log_every=10)


def numbered(n: int) -> Tensor:
    """Row i holds i in its first place."""
    rows = torch.randn(n, 6, generator=torch.Generator().manual_seed(3))
    rows[:, 0] = torch.arange(n, dtype=torch.float32)
    return rows


def every(indices: Tensor) -> Tensor:
    return indices


def test_what_leaves_and_what_stays_is_what_came_in() -> None:
    rows = numbered(1000)
    flow = Flow(list(rows.split(37)), 20, seed=0)
    left = [flow.batch(step, every)[0][:, 0] for step in range(15)]
    seen = torch.cat([*left, flow.x[:, 0]]).sort().values
    assert torch.equal(seen, torch.arange(len(seen), dtype=torch.float32))
    assert not torch.equal(left[0].sort().values, torch.arange(20.0))  # mixed: not the first twenty


def test_pairs_stay_pairs() -> None:
    rows = numbered(600)
    flow = Flow([(part, -2 * part) for part in rows.split(50)], 16, seed=1)
    for step in range(10):
        x, y = flow.batch(step, every)
        assert torch.equal(y, -2 * x)


class Steps:
    """Chunks that can be asked for from the n-th on; remembers what was asked."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.asked, self.first = rows, [], 0

    def starting_at(self, n: int) -> Steps:
        other = Steps(self.rows)
        other.first = n
        self.asked.append(n)
        return other

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.rows.split(37)[self.first :])


@pytest.mark.parametrize("make", [lambda x: list(x.split(37)), lambda x: DataLoader(x, batch_size=37), Steps])
@pytest.mark.parametrize("n", [5, 29, 77])
def test_a_restored_flow_draws_what_the_first_would_have_drawn(make: Any, n: int) -> None:
    """Over several passes of the source: a pass of 400 rows lasts 25 batches."""
    rows = numbered(400)
    first = Flow(make(rows), 16, seed=2)
    for step in range(n):
        first.batch(step, every)
    kept = {name: value.clone() for name, value in first.tensors().items()}
    later = [first.batch(n + i, every)[0] for i in range(40)]
    again = Flow(make(rows), 16, seed=2)
    again.restore(kept)
    for i, expected in enumerate(later):
        assert torch.equal(again.batch(n + i, every)[0], expected), i


def test_an_iterator_is_read_once_and_its_end_is_an_error() -> None:
    flow = Flow(iter(numbered(400).split(40)), 16, seed=0)
    with pytest.raises(
        InputError, match=r"ran out of rows after 10 chunks; give something that can be iterated"
    ):
        for step in range(40):
            flow.batch(step, every)


def test_chunks_with_nan_and_of_the_wrong_type_are_named() -> None:
    bad = numbered(400)
    bad[3, 2] = float("nan")
    with pytest.raises(InputError, match="1 of 40 rows that list gave hold NaN or infinity"):
        Flow(list(bad.split(40)), 16, seed=0)
    with pytest.raises(InputError, match="chunk 3 of list holds rows of width 5, the first 6"):
        Flow([numbered(40), numbered(40), numbered(40)[:, :5]], 7, seed=0)
    with pytest.raises(InputError, match="chunk 2 of list holds targets of width 5, the first 6"):
        Flow([(numbered(40), numbered(40)), (numbered(40), numbered(40)[:, :5])], 4, seed=0)
    with pytest.raises(InputError, match=r"must give floats \[sample, d\]; it gave torch.int64"):
        Flow([torch.ones(4, 4, dtype=torch.int64)], 2, seed=0)


def test_a_run_on_chunks_stopped_and_resumed_is_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = numbered(700) / 100
    whole = sae.train(list(rows.split(64)), SHORT, tmp_path / "whole")
    from sae.learner import Learner

    advance = Learner.advance

    def failing(self: Learner, *args: Any, **options: Any) -> dict[str, float]:
        if self.step == 24:
            raise RuntimeError("killed")
        return advance(self, *args, **options)

    monkeypatch.setattr(Learner, "advance", failing)
    with pytest.raises(RuntimeError, match="killed"):
        sae.train(list(rows.split(64)), SHORT, tmp_path / "cut")
    monkeypatch.setattr(Learner, "advance", advance)
    resumed = sae.train(list(rows.split(64)), SHORT, tmp_path / "cut", resume=True)
    for name, value in whole.coder.state_dict().items():
        assert torch.equal(resumed.coder.state_dict()[name], value), name


def test_a_model_gives_the_rows_that_a_capture_holds_without_the_first_position() -> None:
    model = interp.load("mini")
    tokens = interp.toys.embedded("mini").sample(640).tokens
    site = "blocks.1.hook_resid_post"
    rows = sae.model_rows(model, tokens, site, batch=4)
    want = model.capture(tokens, site)[site][:, 1:].flatten(0, 1)
    torch.testing.assert_close(
        torch.cat(list(rows)), want, atol=1e-5, rtol=1e-5
    )  # float32 sums in another batch
    torch.testing.assert_close(torch.cat(list(rows.starting_at(2))), want[2 * 4 * 63 :], atol=1e-5, rtol=1e-5)
    run = sae.train(rows, sae.TrainConfig(d_sae=64, k=4, steps=20, batch_size=32))
    assert run.coder.d_in == 128
