"""A tiny model, its texts, and stores made of them: what the tests of harvesting and of stores share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import interp
from interp import ActivationStore
from interp.models.base import Model

N_IDS = 29


class Tiny(nn.Module):
    """Token ids [batch, pos] -> logits [batch, pos, 29]; every position sees those before it."""

    def __init__(self, seed: int = 0, *, d_hidden: int = 10) -> None:
        super().__init__()
        self.table = nn.Embedding(N_IDS, 6)
        self.mix = nn.Linear(6, d_hidden)
        self.unembed = nn.Linear(d_hidden, N_IDS)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        seen = self.table(ids).cumsum(1)
        return self.unembed(torch.tanh(self.mix(seen)))


SITES = ("table", "mix")


def tiny_model(seed: int = 0, *, d_hidden: int = 10) -> Model:
    """The tiny network behind the toolkit's interface."""
    return interp.load(Tiny(seed, d_hidden=d_hidden))


def id_texts(n: int, *, seed: int = 0, longest: int = 20) -> list[list[int]]:
    """Token id lists of varied lengths, a few of them empty, a few longer than a window."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest, (n,), generator=generator).tolist()
    return [torch.randint(0, N_IDS, (length,), generator=generator).tolist() for length in lengths]


def tiny_harvest(
    out: Path, texts: Any = None, *, model: Model | None = None, **options: Any
) -> ActivationStore:
    """A store of a few small shards."""
    texts = id_texts(60) if texts is None else texts
    options = {"context": 16, "shard_rows": 64, "batch_size": 4} | options
    return interp.harvest(model or tiny_model(), texts, SITES, out, **options)


def oracle_rows(model: Model, texts: list[list[int]], *, context: int = 16) -> dict[str, Tensor]:
    """The same rows, one window at a time, nothing batched, padded, sharded or stored."""
    columns: dict[str, list[Tensor]] = {name: [] for name in (*SITES, "tokens", "doc", "pos")}
    for doc, ids in enumerate(texts):
        for start in range(0, len(ids), context):
            window = torch.tensor(ids[start : start + context])
            acts = model.capture(window[None], SITES)
            for site in SITES:
                columns[site].append(acts[site][0])
            columns["tokens"].append(window)
            columns["doc"].append(torch.full_like(window, doc))
            columns["pos"].append(torch.arange(len(window)))
    return {name: torch.cat(parts) for name, parts in columns.items()}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, hidden and temporary ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process (warm: nothing is imported again); its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 warns of forks beside threads; this child is brief
        child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must never return into the test runner
        os._exit(1)


def finished(child: int) -> int:
    """The child's exit status; negative: the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_same_bytes(got: Path, wanted: Path) -> None:
    one, other = bytes_of(got), bytes_of(wanted)
    assert list(one) == list(other)
    assert [name for name in one if one[name] != other[name]] == []


def assert_same_rows(store: interp.ActivationStore, truth: dict[str, torch.Tensor]) -> None:
    for site in SITES:
        torch.testing.assert_close(store.rows(site), truth[site], rtol=1e-6, atol=1e-6)
    for name in ("tokens", "doc", "pos"):
        assert torch.equal(getattr(store, name).long(), truth[name])
