"""Scrubbing: a stated hypothesis tested by resampling everything that it says does not matter.

``circuits.scrub``. The hypothesis names edges, and for some sources a feature: examples that share it should be
interchangeable there. The network is unfolded into the tree of its paths: every occurrence of a source in it gets an
example of its own. Read next: ``passes.py`` (a run and its terms).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.layout import GQA, Layout
from circuits.passes import Recorder, Run, located
from circuits.questions import asked
from circuits.stream import Part, Stream, Visitor
from interp.errors import InputError, nearest
from interp.results import Result
from interp.tokens import Tokens

__all__ = ["Scrubbed", "scrub"]

MOST = 5000
"""Occurrences of sources in the tree at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Scrubbed(Result):
    """``value``: (scrubbed - everything resampled) / (network - everything resampled), of mean metrics."""

    scrubbed: np.ndarray
    """[draw, example] the metric of every scrubbed run."""
    clean: np.ndarray
    """[example]"""
    resampled: np.ndarray
    """[draw, example] the metric on another example's logits: the hypothesis that nothing matters."""
    edges: tuple[str, ...]
    n_resampled: int
    """Occurrences of sources in the tree."""


def scrub(
    model: Any,
    task: Any,
    edges: Sequence[str],
    *,
    features: Mapping[str, Any] | None = None,
    pool: str = "clean",
    n_draws: int = 5,
    gqa: GQA = "ungrouped",
    seed: int = 0,
) -> Scrubbed:
    """Test by resampling that ``edges`` alone matter, and of their sources only the ``features``.

    Parameters
    ----------
    edges
        Names of the edges that the hypothesis says matter. What any other edge carries comes from an example drawn at
        random (one for all unimportant edges into a destination).
    features
        Source -> a label for every example (a list, array or tensor): what its output may depend on. An example of the
        same label is drawn in its stead, anew for each place where the source is used. A source without an entry keeps
        its example.
    pool
        Where examples are drawn from: the ``"clean"`` prompts, or ``"both"`` (labels then cover the clean prompts and
        behind them the corrupted). Draws have the length of the example they stand in for.
    n_draws
        Repetitions.

    Returns
    -------
    Scrubbed
        Near 1 where the hypothesis explains the behaviour, near 0 where it is no better than knowing nothing.

    Raises
    ------
    InputError
        Unknown edges or sources, labels of another number, no behaviour to explain, a tree that is too large.

    Notes
    -----
    Cost a draw: a block for every occurrence of a source in the tree, that is for every path through the hypothesis.
    All prompts are run at once.

    References
    ----------
    Chan et al. 2022, "Causal scrubbing: a method for rigorously testing interpretability hypotheses", algorithm 1.
    """
    if pool not in ("clean", "both"):
        raise InputError(f"pool={pool!r}; it is 'clean' or 'both'")
    if not len(edges) or n_draws < 1:
        raise InputError(f"{len(edges)} edges and n_draws={n_draws}: a hypothesis has edges, a test draws")
    stream = Stream(model, gqa=gqa)
    layout = stream.layout
    mask = layout.mask(list(edges))
    n_places = _places(layout, mask)
    if n_places > MOST:
        raise InputError(
            f"the tree of this hypothesis has {n_places:,} occurrences of sources; at most {MOST:,} are run: "
            "name fewer edges (prune dangling ones first)"
        )
    (question,) = asked(task)
    tokens = question.clean if pool == "clean" else _joined(question.clean, question.corrupted)
    held = _Pool(stream, tokens)
    labels = _labels(layout, features or {}, len(tokens))
    rng = np.random.default_rng(seed)
    rows = np.arange(len(question))
    with torch.no_grad():
        clean = question.score(stream.head(held.entering[-1][: len(rows)], question.position)).cpu().numpy()
        scrubbed, resampled = [], []
        for _ in range(n_draws):
            tree = _Tree(stream, held, mask, labels, rng)
            found = stream.head(tree.entering(len(layout.destinations) - 1, rows), question.position)
            scrubbed.append(question.score(found).cpu().numpy())
            other = stream.head(held.entering[-1][held.like(rows, rng)], question.position)
            resampled.append(question.score(other).cpu().numpy())
    return _shared(np.stack(scrubbed), clean, np.stack(resampled), edges, n_places, model, pool, seed)


def _shared(
    scrubbed: np.ndarray,
    clean: np.ndarray,
    resampled: np.ndarray,
    edges: Sequence[str],
    n_places: int,
    model: Any,
    pool: str,
    seed: int,
) -> Scrubbed:
    gap = clean.mean() - resampled.mean()
    if abs(gap) <= 1e-9 * (np.abs(clean).mean() + 1e-30):
        raise InputError(
            f"on other examples' logits the metric is {clean.mean():.4g} too: there is no behaviour to explain"
        )
    each = scrubbed.mean(0) / gap
    return Scrubbed(
        name="behaviour kept by the scrubbed network",
        value=float((scrubbed.mean() - resampled.mean()) / gap),
        stderr=float(each.std(ddof=1) / len(each) ** 0.5) if len(each) > 1 else None,
        n=len(clean),
        convention=(
            f"every path's examples drawn apart from the {pool} prompts of equal length, {len(scrubbed)} draws; "
            "0: another example's logits, 1: the network; standard error over examples"
        ),
        chance=0.0,
        provenance={"model": model.name, "backend": model.backend, "pool": pool, "seed": seed},
        scrubbed=scrubbed,
        clean=clean,
        resampled=resampled,
        edges=tuple(edges),
        n_resampled=n_places,
    )


def _joined(a: Tokens, b: Tokens) -> Tokens:
    return Tokens(ids=torch.cat([a.ids, b.ids]), mask=torch.cat([a.mask, b.mask]), show=a.show)


def _labels(layout: Layout, features: Mapping[str, Any], n: int) -> dict[int, np.ndarray]:
    """[source] numbered labels; others keep their example."""
    found = {}
    for name, given in features.items():
        if name not in layout.sources:
            raise InputError(f"no source {name!r}{nearest(name, layout.sources)}")
        listed = given.tolist() if hasattr(given, "tolist") else list(given)
        if len(listed) != n:
            raise InputError(f"feature of {name}: {len(listed)} labels for {n} examples")
        numbers = {label: i for i, label in enumerate(dict.fromkeys(map(str, listed)))}
        found[layout.sources.index(name)] = np.array([numbers[str(label)] for label in listed])
    return found


def _places(layout: Layout, mask: np.ndarray) -> int:
    """How often sources occur in the tree of paths that end in the logits."""
    into: dict[int, list[int]] = {}
    for d, feeds in enumerate(layout.feeds):
        for s in feeds:
            into.setdefault(s, []).append(d)
    visits: list[int] = []

    def entering(d: int) -> int:
        inside = layout.source[layout.offsets[d] : layout.offsets[d + 1]]
        chosen = mask[layout.offsets[d] : layout.offsets[d + 1]]
        return sum(visits[int(s)] for s in inside[chosen])

    for s in range(len(layout.sources)):  # forward order: what a source reads comes before it
        visits.append(1 + sum(entering(d) for d in into.get(s, ())))  # noqa: PERF401 - the sum reads what was appended
    return entering(len(layout.destinations) - 1)


class _Entered(Recorder):
    """A recorder that also keeps what MLPs read."""

    def __init__(self, n_layers: int) -> None:
        super().__init__(n_layers, resid=True)
        self.read: dict[int, Tensor] = {}

    def mlp_entered(self, part: Part, x: Tensor) -> None:
        self.read[part.layer] = x.detach()


class _Pool:
    """The runs that examples are drawn from."""

    def __init__(self, stream: Stream, tokens: Tokens) -> None:
        with torch.no_grad():
            x, calls = stream.enter(tokens)
            kept = _Entered(len(stream.parts))
            end = stream.blocks(x, calls, visitor=kept)
        assert kept.resid is not None
        self.run = Run(writes=kept.writes(x), resid=(*kept.resid, end), calls=calls)
        layout, names = stream.layout, stream.layout.destinations
        self.entering = [
            end if name == "logits" else kept.read[int(at)] if name[0] == "m" else kept.resid[int(at)]
            for name, at in zip(names, layout.layer, strict=True)
        ]
        """[destination] what it reads [example pos d_model]."""
        self.terms = [self.run.writes.term(stream, s) for s in range(len(layout.sources))]
        shapes = [tuple(row) for row in tokens.mask.cpu().tolist()]
        number = {shape: i for i, shape in enumerate(dict.fromkeys(shapes))}
        self.shape = np.array([number[shape] for shape in shapes])
        self.n = len(tokens)

    def like(
        self, rows: np.ndarray, rng: np.random.Generator, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """For every row an example of its length, and of its label where there are some."""
        key = self.shape if labels is None else self.shape * (labels.max() + 1) + labels
        order = np.argsort(key, kind="stable")
        starts = np.searchsorted(key[order], key[rows], side="left")
        stops = np.searchsorted(key[order], key[rows], side="right")
        return order[starts + (rng.random(len(rows)) * (stops - starts)).astype(int)]


class _Tree:
    """Evaluates the tree of paths, each occurrence of a source on examples of its own."""

    def __init__(
        self,
        stream: Stream,
        pool: _Pool,
        mask: np.ndarray,
        labels: dict[int, np.ndarray],
        rng: np.random.Generator,
    ) -> None:
        self.stream, self.layout, self.pool = stream, stream.layout, pool
        self.mask, self.labels, self.rng = mask, labels, rng
        self.at = {name: i for i, name in enumerate(self.layout.destinations)}

    def entering(self, d: int, rows: np.ndarray) -> Tensor:
        """What destination ``d`` reads [row pos d_model] when it stands for the examples ``rows``."""
        other = self.pool.like(rows, self.rng)
        x = self.pool.entering[d][other]
        start, stop = self.layout.offsets[d], self.layout.offsets[d + 1]
        for edge in np.flatnonzero(self.mask[start:stop]) + start:
            s = int(self.layout.source[edge])
            same = self.pool.like(rows, self.rng, self.labels[s]) if s in self.labels else rows
            x = x + self.value(s, same) - self.pool.terms[s][other]
        return x

    def value(self, s: int, rows: np.ndarray) -> Tensor:
        """What source ``s`` writes [row pos d_model]."""
        layer, head = located(self.layout, s)
        if layer < 0:
            return self.pool.terms[s][rows]
        part = self.stream.parts[layer]
        if head is None:
            visitor = _Part(part, None, {"": self.entering(self.at[f"m{layer}"], rows)})
        else:
            visitor = _Part(part, head, {p: self.entering(self._port(layer, head, p), rows) for p in "qkv"})
        args, kwargs = self._calls(layer, rows)
        with self.stream.visited(visitor, layer):
            part.module(self.pool.run.resid[layer][rows], *args, **kwargs)
        assert visitor.found is not None
        return visitor.found

    def _port(self, layer: int, head: int, port: str) -> int:
        block = self.layout.blocks[layer]
        if port != "q" and block.n_kv != block.n_heads:
            return self.at[f"a{layer}.kv{head * block.n_kv // block.n_heads}<{port}>"]
        return self.at[f"a{layer}.h{head}<{port}>"]

    def _calls(self, layer: int, rows: np.ndarray) -> tuple[tuple, dict[str, Any]]:
        """What the block is handed for those examples."""
        n = self.pool.n

        def chosen(value: Any) -> Any:
            if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] == n > 1:
                return value[torch.from_numpy(rows).to(value.device)]
            if isinstance(value, tuple | list):
                return type(value)(chosen(item) for item in value)
            return value

        args, kwargs = self.pool.run.calls.blocks[layer]
        return tuple(map(chosen, args)), {key: chosen(value) for key, value in kwargs.items()}


class _Part(Visitor):
    """Gives one head (or the MLP) streams of its own and keeps what it writes."""

    def __init__(self, part: Part, head: int | None, streams: dict[str, Tensor]) -> None:
        self.part, self.head, self.streams = part, head, streams
        self.found: Tensor | None = None

    def projected(self, part: Part, ports: Sequence[str], out: Tensor, version: int) -> Tensor | None:
        if self.head is None:
            return None
        for port in ports:
            own, theirs = part.heads_of(port, version)
            wanted = self.head
            if port != "q" and part.n_versions == 1 and part.spec.attn is not None:
                wanted = self.head * part.spec.attn.n_kv_heads // part.n_heads
            if wanted not in theirs:
                continue
            at = own[theirs.index(wanted)]
            x = self.streams[port] if part.norm is None else part.norm(self.streams[port])
            new, bias = x @ part.weight(port)[:, at], part.bias(port)
            value = part.read(port, out).clone()
            value[:, :, at] = new if bias is None else new + bias[at]
            out = part.written(port, out, value)
        return out

    def attended(self, part: Part, z: Tensor) -> None:
        if self.head is not None:
            self.found = z[:, :, self.head] @ part.output[self.head]

    def mlp_entered(self, part: Part, x: Tensor) -> Tensor | None:
        return self.streams[""] if self.head is None else None

    def mlp_left(self, part: Part, y: Tensor) -> None:
        if self.head is None:
            self.found = y
