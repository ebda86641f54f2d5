"""Where a sweep's samples come from: a model run on tokens, an activation store, or rows the caller already has.

Each becomes the same thing, :class:`Samples`: rows by site, and one label, group and word type a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.errors import InputError
from interp.sites import Site, SiteTable

if TYPE_CHECKING:
    from interp.tokens import Tokens

__all__ = ["Column", "Samples", "by_position", "read", "usable"]

Column = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | Sequence[int]
"""One whole number a sample."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Rows by site name, and what is known about each row."""

    rows: Callable[[str], np.ndarray]
    """Site name -> [sample, d]."""
    labels: np.ndarray
    groups: np.ndarray
    types: np.ndarray | None
    index: np.ndarray | None = None
    """Which of all samples these are, where some were left out."""

    def name(self, row: int) -> str:
        """A sample as messages call it."""
        return f"sample {row if self.index is None else self.index[row]} (group {self.groups[row]})"


def read(
    source: Any,
    labels: Any,
    sites: Any,
    *,
    tokens: Tokens | None,
    groups: Any,
    types: Any,
    baseline: str | None = None,
    seed: int = 0,
) -> tuple[list[str], Samples]:
    """The names of the sites that were asked for, and their samples; arguments as for :func:`probes.sweep`.

    ``baseline``: of the same architecture with fresh weights (``"random_init"``), or of the same tokens, each with its
    label, in random order (``"shuffled_tokens"``); for models only.
    """
    if baseline is not None and not hasattr(source, "capture"):
        raise InputError(
            f"the baseline {baseline!r} runs the model again; give the model, not its activations"
        )
    if isinstance(source, Mapping):
        return _from_mapping(source, labels, sites, groups=groups, types=types)
    if hasattr(source, "capture"):
        if tokens is None:
            raise InputError("a model was given without tokens; say tokens=model.tokens([...])")
        if baseline == "random_init":
            from interp.metrics.baselines import random_init

            source = random_init(source, seed=seed)
        elif baseline == "shuffled_tokens":
            tokens, labels, types = _shuffled(tokens, labels, types, seed)
        return _from_model(source, labels, sites, tokens=tokens, groups=groups, types=types)
    if hasattr(source, "n_rows") and hasattr(source, "rows"):
        return _from_store(source, labels, sites, groups=groups, types=types)
    raise InputError(
        f"cannot sweep over a {type(source).__name__}; give a model, an ActivationStore or a mapping site -> rows"
    )


def _column(values: Column, n: int, what: str) -> np.ndarray:
    column = np.asarray(torch.as_tensor(values).cpu() if isinstance(values, Tensor) else values).ravel()
    if len(column) != n:
        raise InputError(f"{what} has {len(column)} entries for {n} samples")
    if column.dtype.kind not in "iub":
        raise InputError(f"{what} must be whole numbers; got {column.dtype}")
    return column.astype(np.int64)


def _from_mapping(
    source: Mapping[Any, Any], labels: Column, sites: Any, *, groups: Any, types: Any
) -> tuple[list[str], Samples]:
    known = {str(site): x for site, x in source.items()}
    asked = [str(s) for s in ([sites] if isinstance(sites, str | Site) else sites)]
    names = [name for name in known if any(name == one or fnmatchcase(name, one) for one in asked)]
    if not names:
        raise InputError(f"none of {asked} is among the given sites: {list(known)}")
    n = len(known[names[0]])
    if groups is None:
        raise InputError(
            "groups is missing: say which text each row comes from, or groups='row' where rows are independent"
        )
    column = np.arange(n) if isinstance(groups, str) else _column(groups, n, "groups")
    data = Samples(
        rows=lambda name: _matrix(known[name], name),
        labels=_column(labels, n, "labels"),
        groups=column,
        types=None if types is None else _column(types, n, "types"),
    )
    return names, data


def _from_store(
    store: Any, labels: Column, sites: Any, *, groups: Any, types: Any
) -> tuple[list[str], Samples]:
    names, n = [str(s) for s in _store_sites(store, sites)], store.n_rows
    doc, ids = (store.doc if groups is None else groups), (store.tokens if types is None else types)
    everything = np.arange(n)
    data = Samples(
        rows=lambda name: _matrix(store.rows(name, everything), name),
        labels=_column(labels, n, "labels"),
        groups=everything if isinstance(doc, str) else _column(doc, n, "groups"),
        types=None if ids is None else _column(ids, n, "types"),
    )
    return names, data


def _store_sites(store: Any, sites: Any) -> list[Site]:
    return list(SiteTable([Site.parse(s) for s in store.sites]).find(sites))


def _from_model(
    model: Any, labels: Any, sites: Any, *, tokens: Tokens, groups: Any, types: Any
) -> tuple[list[str], Samples]:
    found = model.find(sites)
    acts = model.capture(tokens, list(found), device="cpu", batch_size=32)
    mask = tokens.mask.cpu()
    flat = {str(site): acts.rows(site) for site in found}
    n_tokens, n_texts = int(mask.sum()), len(tokens)
    sizes = {name: len(x) for name, x in flat.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"sites with and without positions cannot be swept together: {sizes}")
    by_text = set(sizes.values()) == {n_texts} and n_tokens != n_texts
    label_grid = _aligned(labels, mask)
    if label_grid.shape == mask.shape and not by_text:
        label_grid = label_grid[mask]
    texts = torch.arange(n_texts) if by_text else torch.arange(n_texts)[:, None].expand_as(mask)[mask]
    if types is None and not by_text:
        types = tokens.ids.cpu()[mask]
    n = sizes[str(found[0])]
    own = texts if groups is None else groups
    data = Samples(
        rows=lambda name: _matrix(flat[name], name),
        labels=_column(label_grid, n, "labels"),
        groups=np.arange(n) if isinstance(own, str) else _column(own, n, "groups"),
        types=None if types is None else _column(types, n, "types"),
    )
    return [str(site) for site in found], data


def by_position(
    labels: Int[Tensor, "batch pos"], positions: Sequence[int] | None = None
) -> dict[str, Int[Tensor, "batch pos"]]:
    """A label a column, for a sweep that tells positions apart: ``sweep(model, by_position(labels), ...)``.

    Columns without two classes among their labels are left out; with ``positions`` only those are asked for.
    """
    asked = range(labels.shape[1]) if positions is None else positions
    found = {}
    for column in asked:
        if not -labels.shape[1] <= column < labels.shape[1]:
            raise InputError(f"position {column} of labels with {labels.shape[1]} columns")
        own = torch.full_like(labels, -100)
        own[:, column] = labels[:, column]
        if len(own[own >= 0].unique()) > 1:
            found[f"position {column}"] = own
    if not found:
        raise InputError(f"at none of the positions {list(asked)} are there labels of two classes")
    return found


def _aligned(labels: Any, mask: Tensor) -> Tensor:
    """Labels as one tensor; a list of lists, one a text, is laid on the texts' real tokens."""
    nested = (
        isinstance(labels, Sequence) and len(labels) and isinstance(labels[0], Sequence | np.ndarray | Tensor)
    )
    if not nested:
        grid = labels.cpu() if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
        if grid.ndim == 2 and grid.shape != mask.shape:
            raise InputError(
                f"the labels are {list(grid.shape)}, the tokens {list(mask.shape)}: text 0 has {grid.shape[1]} labels "
                f"for {mask.shape[1]} columns"
            )
        return grid
    if len(labels) != len(mask):
        raise InputError(f"labels of {len(labels)} texts were given for {len(mask)} texts")
    grid = torch.full(mask.shape, -100, dtype=torch.long)
    for i, (own, real) in enumerate(zip(labels, mask, strict=True)):
        if len(own) != int(real.sum()):
            raise InputError(f"text {i} has {len(own)} labels for {int(real.sum())} tokens")
        grid[i, real] = torch.as_tensor(np.asarray(own)).long()
    return grid


def _shuffled(tokens: Tokens, labels: Any, types: Any, seed: int) -> tuple[Tokens, Any, Any]:
    """All real tokens in random order, each with its own label; a first token that all texts share stays."""
    from interp.tokens import Tokens

    ids, moved = tokens.ids.cpu().clone(), tokens.mask.cpu().clone()
    if len(ids) > 1 and bool((ids[:, 0] == ids[0, 0]).all()) and bool(moved[:, 0].all()):
        moved[:, 0] = False
    order = torch.randperm(int(moved.sum()), generator=torch.Generator().manual_seed(seed))

    def carried(values: Any) -> Any:
        if values is None:
            return None
        grid = torch.as_tensor(np.asarray(values.cpu() if isinstance(values, Tensor) else values)).clone()
        if grid.shape != ids.shape:
            raise InputError(
                f"tokens can be shuffled with their labels if those are [batch, pos]; got {list(grid.shape)}"
            )
        grid[moved] = grid[moved][order]
        return grid

    return Tokens(ids=carried(ids), mask=tokens.mask.cpu(), show=tokens.show), carried(labels), carried(types)


def _matrix(x: Any, name: str) -> np.ndarray:
    """Rows [sample, d] as a float array; trailing axes (heads) are laid side by side."""
    rows = torch.as_tensor(x).detach().cpu()
    if rows.ndim < 2:
        raise InputError(f"{name} has shape {list(rows.shape)}; rows [sample, d] are needed")
    rows = rows.flatten(1).float()
    if not bool(torch.isfinite(rows).all()):
        bad = torch.nonzero(~torch.isfinite(rows).all(1)).flatten()
        raise InputError(
            f"{name} holds NaN or infinity in {len(bad)} rows, the first of them row {int(bad[0])}"
        )
    return rows.numpy()


def usable(data: Samples, max_samples: int | None, seeds: Sequence[int]) -> Samples:
    """The labelled samples, at most ``max_samples`` of them."""
    if not len(seeds):
        raise InputError("seeds is empty; give at least one")
    keep = np.flatnonzero(data.labels >= 0)
    classes = np.unique(data.labels[keep])
    if len(classes) < 2:
        first = f", the first of them {data.name(int(keep[0]))}" if len(keep) else ""
        raise InputError(
            f"{len(keep)} of {len(data.labels)} samples are labelled, all of class {classes.tolist()}{first}; "
            "a probe needs at least two classes"
        )
    if len(keep) <= len(classes):
        raise InputError(
            f"{len(keep)} labelled samples of {len(classes)} classes; more samples than classes are needed (class "
            f"{data.labels[keep[0]]} has one only, {data.name(int(keep[0]))})"
        )
    if max_samples is not None and len(keep) > max_samples:
        keep = np.sort(np.random.default_rng(seeds[0]).choice(keep, size=max_samples, replace=False))
    every = data.rows
    types = None if data.types is None else data.types[keep]
    if types is not None and len(np.unique(types)) < 2:
        types = None  # one word type: the control task would be a constant
    return Samples(
        rows=lambda name: every(name)[keep],
        labels=data.labels[keep],
        groups=data.groups[keep],
        types=types,
        index=keep,
    )
