"""The rows that a command reads: a store's, or those that a model makes of texts; some of them kept apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import InputError, nearest
from sae.streaming import ModelRows, model_rows

if TYPE_CHECKING:
    from interp.stores.store import ActivationStore

__all__ = ["Material", "Part", "is_store", "material"]

HELD_OUT = 0.05
"""Share of texts, or of a store's rows, that training never sees."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """Rows to train on, others to judge by, and where both come from."""

    data: Any
    """What :func:`sae.train` takes."""
    held_out: Any
    """The same of what was kept apart; None where there is too little to keep any apart."""
    sites: tuple[str, ...]
    targets: tuple[str, ...]
    model: Any
    """The network that makes the rows; None for a store."""
    record: dict[str, Any]
    """JSON-able; equal for equal data."""

    def rows(self, data: Any, n: int) -> tuple[Tensor, Tensor]:
        """The first ``n`` rows of ``data``, and what should be written for each."""
        if isinstance(data, ModelRows):
            xs, ys, seen = [], [], 0
            for chunk in data:
                x, y = chunk if isinstance(chunk, tuple) else (chunk, chunk)
                xs.append(x)
                ys.append(y)
                seen += len(x)
                if seen >= n:
                    break
            x, y = torch.cat(xs)[:n], torch.cat(ys)[:n]
        else:
            index = torch.arange(min(n, data.n_rows))
            x = torch.cat([data.rows(site, index).flatten(1).float() for site in self.sites], 1)
            parts = [data.rows(site, index).flatten(1).float() for site in self.targets or self.sites]
            y = torch.cat(parts, 1)
        return x, y


class Part:
    """Rows [start, stop) of a store, under their own numbers."""

    def __init__(self, store: ActivationStore, start: int, stop: int) -> None:
        self.store, self.start, self.n_rows = store, start, stop - start
        self.sites = store.sites

    def rows(self, site: Any, index: Tensor) -> Tensor:
        """Rows of one site by number."""
        return self.store.rows(site, torch.as_tensor(index) + self.start)


def is_store(path: Path) -> bool:
    """Whether an activation store lies in the folder or right below it (a model's folder has a config.json too)."""
    return any(path.is_dir() and any(path.glob(name)) for name in ("manifest*.jsonl", "*/manifest*.jsonl"))


def material(
    source: str,
    sites: Sequence[str],
    targets: Sequence[str] = (),
    *,
    texts: Path | None,
    n_tokens: int,
    batch: int,
    seed: int,
    backend: str = "auto",
    device: str = "auto",
) -> Material:
    """Rows of ``source`` (a store's folder, or whatever :func:`interp.load` takes) at ``sites``.

    Raises
    ------
    InputError
        No texts for a model that has none of its own, or texts for a store.
    SiteError
        A site that is not there.
    """
    if is_store(Path(source)):
        if texts is not None:
            raise InputError(f"{source} is a store of activations, which needs no --texts")
        return _stored(source, sites, targets)
    from interp import load
    from interp.toys.collection import names

    own = texts is None and source in names()
    if texts is None and not own:
        raise InputError(
            f"{source} has no texts of its own and is no store: give a file with --texts"
            + (" (the folder does not exist)" if "/" in source and not Path(source).exists() else "")
            + nearest(source, names())
        )
    network = load(source, backend=backend, device=device)  # pyright: ignore[reportArgumentType]
    if own:
        kept, apart = _own(source, n_tokens, seed)
        told: dict[str, Any] = {"texts": f"its own, about {n_tokens} tokens", "seed": seed}
    else:
        from interp.runs.files import sha256_file
        from interp.stores.texts import read_texts

        assert texts is not None  # the other branch
        read = list(read_texts(texts))
        n = round(HELD_OUT * len(read))
        kept, apart = read[: len(read) - n], read[len(read) - n :]
        told = {"texts": texts.name, "texts_sha256": sha256_file(texts), "n_texts": len(read)}
    sites = _found(network, sites)
    targets = _found(network, targets)
    return Material(
        data=model_rows(network, kept, sites, targets=targets, batch=batch),
        held_out=model_rows(network, apart, sites, targets=targets, batch=batch) if len(apart) else None,
        sites=sites,
        targets=targets,
        model=network,
        record={"model": network.describe(), **told, "sites": list(sites), "targets": list(targets)},
    )


def _own(name: str, n_tokens: int, seed: int) -> tuple[Any, Any]:
    """An embedded network's own inputs, and others that are not among them."""
    from interp.toys.collection import embedded

    network = embedded(name)
    kept = network.sample(n_tokens, seed=seed).tokens
    other = network.sample(max(2, round(HELD_OUT * n_tokens)), seed=seed + 1).tokens
    seen = {tuple(ids) for ids in kept.ids.tolist()}
    return kept, other.select([i for i, ids in enumerate(other.ids.tolist()) if tuple(ids) not in seen])


def _found(network: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The sites that names or globs mean, in the order they were asked for."""
    return tuple(dict.fromkeys(str(site) for name in names for site in network.find(name)))


def _stored(source: str, sites: Sequence[str], targets: Sequence[str]) -> Material:
    from interp import open_store

    store = open_store(source)
    if not sites and len(store.sites) == 1:
        sites = [str(store.sites[0])]
    for name in (*sites, *targets):
        store.rows(name, slice(0, 1))  # an unknown one is named with those that are there
    n = store.n_rows - round(HELD_OUT * store.n_rows)
    shards = hashlib.sha256("".join(shard.sha256 for shard in store.shards).encode()).hexdigest()
    record = {"store": store.path.name, "n_rows": store.n_rows, "shards_sha256": shards}
    if isinstance(made_by := store.provenance.get("model"), dict):
        record["model"] = made_by
    return Material(
        data=Part(store, 0, n),
        held_out=Part(store, n, store.n_rows) if n < store.n_rows else None,
        sites=tuple(sites),
        targets=tuple(targets),
        model=None,
        record=record | {"sites": list(sites), "targets": list(targets)},
    )
