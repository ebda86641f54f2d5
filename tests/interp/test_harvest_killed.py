"""A harvest that is killed anywhere and resumed gives the bytes of one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import interp
from interp import open_store
from tests.interp.stores import (
    assert_same_bytes,
    finished,
    id_texts,
    in_child,
    tiny_harvest,
    tiny_model,
)


@pytest.mark.slow
def test_killed_at_twenty_random_points_it_resumes_to_the_same_bytes(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(45)
    tiny_harvest(quick / "whole", texts, model=model)
    started = time.monotonic()
    assert finished(in_child(lambda: tiny_harvest(quick / "timed", texts, model=model))) == 0
    duration = time.monotonic() - started
    chance = random.Random(0)
    killed, seen = 0, set()
    for trial in range(60):
        out = quick / f"trial{trial}"
        child = in_child(lambda out=out: tiny_harvest(out, texts, model=model))
        time.sleep(chance.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        killed += finished(child) == -signal.SIGKILL  # else it had ended before
        seen.add(len(list(out.rglob("*.safetensors"))))
        tiny_harvest(out, texts, model=model)
        assert_same_bytes(out, quick / "whole")
        shutil.rmtree(out)
        if killed == 20:
            break
    assert killed == 20
    assert len(seen) >= 3  # they were killed at different points


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(45, seed=3)
    tiny_harvest(quick / "whole", texts, model=model)
    chance = random.Random(1)
    for _ in range(25):
        child = in_child(lambda: tiny_harvest(quick / "killed", texts, model=model))
        time.sleep(chance.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        if finished(child) == 0:
            break
    tiny_harvest(quick / "killed", texts, model=model)
    assert_same_bytes(quick / "killed", quick / "whole")


@pytest.mark.parametrize("moment", ["half", "after"])
def test_killed_at_every_single_write_it_resumes_to_the_same_bytes(quick: Path, moment: str) -> None:
    model = tiny_model()
    texts = id_texts(14)
    tiny_harvest(quick / "whole", texts, model=model)

    def die_at(step: int, out: Path) -> None:
        steps = iter(range(10**6))

        def dying(call: Callable, *, half: Callable | None = None) -> Callable:
            def wrapped(*args, **options):
                now = next(steps) == step
                if now and moment == "half" and half is not None:
                    half(*args)
                if now and moment != "after":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **options)
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        write, replace = os.write, Path.replace
        os.fsync = dying(os.fsync)
        os.write = dying(write, half=lambda handle, data: write(handle, data[: len(data) // 2]))
        Path.replace = dying(replace)  # type: ignore[method-assign]
        tiny_harvest(out, texts, model=model)

    step = 0
    for step in range(1000):
        out = quick / f"step{step}"
        status = finished(in_child(lambda step=step, out=out: die_at(step, out)))
        tiny_harvest(out, texts, model=model)
        assert_same_bytes(out, quick / "whole")
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 3 * len(open_store(quick / "whole").shards)


def test_the_first_interrupt_leaves_whole_shards_and_a_resumable_store(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(160)
    handler = signal.getsignal(signal.SIGINT)

    def interrupted() -> Iterator[list[int]]:
        for doc, text in enumerate(texts):
            if doc == 120:
                signal.raise_signal(signal.SIGINT)
            yield text

    whole = tiny_harvest(quick / "whole", texts, model=model)
    message = r"stopped with \d+ rows in .*; resume=True goes on from there"
    with pytest.raises(KeyboardInterrupt, match=message):
        tiny_harvest(quick / "cut", interrupted(), model=model)
    assert signal.getsignal(signal.SIGINT) is handler
    cut = open_store(quick / "cut").verify()
    assert 0 < cut.n_rows < whole.n_rows
    tiny_harvest(quick / "cut", texts, model=model)
    assert_same_bytes(quick / "cut", quick / "whole")


def test_a_forward_pass_that_draws_random_numbers_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(29, 4)
            self.mix = nn.Identity()

        def forward(self, ids):
            return self.mix(self.table(ids) + torch.randn(*ids.shape, 4))

    model = interp.load(Drawn().requires_grad_(False))
    before = torch.get_rng_state()
    tiny_harvest(tmp_path / "whole", id_texts(60), model=model)
    assert torch.equal(torch.get_rng_state(), before)
    tiny_harvest(tmp_path / "cut", id_texts(60), model=model, max_tokens=200)
    cut = open_store(tmp_path / "cut")
    assert cut.n_rows < open_store(tmp_path / "whole").n_rows
    n = sum(shard.rows for shard in cut.shards[:-1])
    assert n > 0
    whole = open_store(tmp_path / "whole").rows("mix", slice(0, n))
    assert torch.equal(cut.rows("mix", slice(0, n)), whole)
    tiny_harvest(tmp_path / "other", id_texts(60), model=model, seed=1)
    assert not torch.equal(open_store(tmp_path / "other").rows("mix", slice(0, n)), whole)
