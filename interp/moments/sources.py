"""Where Moments come from: arrays, Activations, a store on disk, or a model that is run once and keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from interp.activations import Activations
from interp.errors import InputError
from interp.moments.accumulator import Accumulator
from interp.sites import Site
from interp.tokens import Tokens

__all__ = ["moments_from_model", "moments_of"]

M = TypeVar("M", bound=Accumulator)


def moments_of(
    data: Any,
    kind: type[M],
    *,
    labels: Any = None,
    sites: Any = None,
    batch_size: int = 8192,
    bad_rows: str = "raise",
    **options: Any,
) -> M:
    """Moments of rows that exist already, as a ``kind``.

    Parameters
    ----------
    data
        Site -> rows [sample, d]; Activations (padding left out); an ActivationStore (read in order, ``batch_size``
        rows at a time); or one array [sample, d], called ``"x"``.
    labels
        [sample] class of each row (for Activations also [batch, pos]), negative where it has none.
    sites
        Which of them; all by default.
    **options
        As for :class:`interp.Moments`; ``n_classes`` is counted from ``labels`` where it is not given.
    """
    marks = None if labels is None else torch.as_tensor(labels)
    if marks is not None:
        options.setdefault("n_classes", int(marks.max()) + 1)
    if isinstance(data, Activations):
        if marks is not None and data.mask is not None and marks.shape == data.mask.shape:
            marks = marks[data.mask.to(marks.device)]
        chosen = data.sites if sites is None else [Site.parse(s) for s in _several(sites)]
        data = {site: data.rows(site).flatten(1) for site in chosen}
    elif isinstance(data, Tensor | np.ndarray):
        data = {"x": data}
    if not isinstance(data, Mapping):
        return _from_store(data, kind, marks, sites, batch_size, bad_rows, options)
    rows = {str(site): _floats(torch.as_tensor(x)) for site, x in data.items()}
    if sites is not None:
        rows = {str(site): rows[str(site)] for site in _several(sites)}
    made = kind({site: x.shape[-1] for site, x in rows.items()}, **options)
    made.update(rows, labels=marks, bad_rows=bad_rows)
    return made


def _from_store(  # six facts of one call
    store: Any,
    kind: type[M],
    marks: Tensor | None,
    sites: Any,
    batch_size: int,
    bad_rows: str,
    options: dict[str, Any],
) -> M:
    if not hasattr(store, "batches"):
        raise InputError(
            f"moments are made of arrays, Activations or an ActivationStore; got {type(store).__name__}"
        )
    chosen = store.sites if sites is None else [Site.parse(site) for site in _several(sites)]
    widths = {str(site): int(np.prod(store.shapes[site])) for site in chosen}
    made = kind(widths, **options)
    for batch in store.batches(batch_size, sites=list(chosen), shuffle=False):
        rows = {str(site): _floats(batch[site].flatten(1)) for site in chosen}
        made.update(rows, labels=None if marks is None else marks[batch.index], bad_rows=bad_rows)
    return made


def moments_from_model(
    model: Any,
    tokens: Any,
    sites: Any,
    kind: type[M],
    *,
    labels: Tensor | None = None,
    batch_size: int = 8,
    positions: Any = None,
    bad_rows: str = "raise",
    **options: Any,
) -> M:
    """Moments of a model's activations, batch by batch; only the sums are kept.

    Parameters
    ----------
    model, tokens, sites
        As for :meth:`interp.models.base.Model.capture`; heads are laid side by side, padding is left out.
    labels
        [batch, pos] class of each token, negative where it has none.
    positions
        Columns to take, as for capture.

    Notes
    -----
    Cost: one forward pass per sequence, up to the last site.
    """
    if labels is not None:
        options.setdefault("n_classes", int(labels.max()) + 1)
    batches = tokens if isinstance(tokens, Tokens) or not hasattr(model, "tokens") else _tokens(model, tokens)
    found, made = model.find(sites), None
    for start in range(0, len(batches), batch_size):
        part = batches[start : start + batch_size]
        acts = model.capture(part, list(found), positions=positions)
        rows = {str(site): _floats(acts.rows(site).flatten(1)) for site in found}
        marks = None
        if labels is not None:
            marks = labels[start : start + batch_size]
            marks = (
                marks.gather(1, acts.positions.to(marks.device))[acts.mask]
                if acts.mask is not None
                else marks
            )
        if made is None:
            made = kind({site: x.shape[1] for site, x in rows.items()}, **options)
        made.update(rows, labels=marks, bad_rows=bad_rows)
    if made is None:
        raise InputError("there are no tokens to run")
    return made


def _tokens(model: Any, tokens: Any) -> Any:
    if isinstance(tokens, Tensor):
        return Tokens.full(tokens) if model.d_vocab is not None else tokens
    return model.tokens(tokens) if model.d_vocab is not None else tokens


def _floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.double()


def _several(sites: Any) -> list[Any]:
    return [sites] if isinstance(sites, str | Site) else list(sites)
