"""Nodes: what whole parts are worth (heads, their queries and keys, MLPs, neurons, latents), from a few passes.

``circuits.node_scores(model, task, method=...)``. Works at any site of any model with gradients; edges are
``attribution.py``'s. Read next: ``softmax.py`` (the correction for queries and keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.graph import Graph
from circuits.layout import GQA
from circuits.parts import Table, parts_of
from circuits.questions import Question, asked
from circuits.references import ABLATIONS
from circuits.softmax import keys_effect, queries_effect, recomputed
from circuits.tally import Tally
from interp.dictionaries import Dictionary
from interp.edits import edit
from interp.errors import InputError, nearest
from interp.results import Result
from interp.sites import Site

__all__ = ["NODE_METHODS", "NodeScores", "node_scores"]

_SAID = {
    "atp": "(corrupted - clean) times the gradient at the clean run; negative: corrupting the node lowers the metric",
    "atp-qk": "as atp, but with the softmax recomputed for queries and keys",
    "atp*": (
        "mean size over layers of the estimate with that layer's gradient dropped, softmax recomputed for queries and "
        "keys; no sign"
    ),
    "hisp": "size of output times gradient at the clean run, over the heads of a layer of length 1; no sign",
    "dla": "what the part itself adds to the logit difference at the scale of the final norm; positive: helps",
}
NODE_METHODS = tuple(_SAID)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NodeScores(Result):
    """``value`` [node], or [node position]: what each part is worth, in units of the metric."""

    nodes: tuple[str, ...]
    """``a0.h1`` (a head's output), ``a0.h1<q>``, ``m0``, ``m0.n12`` (a neuron), ``m0.f3`` and ``m0.error``."""
    variance: np.ndarray | None = None
    """Over examples, of one example's score."""
    examples: np.ndarray | None = None
    """[example node (position)] every example's score."""
    method: str = ""

    def score(self, node: str) -> float | np.ndarray:
        """The score of one node (at every position, where they were taken apart)."""
        if node not in self.nodes:
            raise InputError(f"no node {node!r}{nearest(node, self.nodes)}")
        found = np.asarray(self.value)[self.nodes.index(node)]
        return float(found) if found.ndim == 0 else found

    def to_graph(self, model: Any, *, gqa: GQA = "ungrouped") -> Graph:
        """Every edge scored by the lesser of its ends, so that the best edges are those among the best nodes.

        The input and the logits take part in every circuit. Scores are minus the lesser size, whatever the method's
        sign: they select, and say nothing about helping.

        Raises
        ------
        InputError
            A head or MLP of the model was not scored, or scores are by position.
        """
        graph = Graph.from_model(model, gqa=gqa)
        layout, value = graph.layout, np.abs(np.asarray(self.value))
        missing = [name for name in layout.sources[1:] if name not in self.nodes]
        if value.ndim > 1 or missing:
            raise InputError(
                "scores are by position"
                if value.ndim > 1
                else f"{missing[0]} has no score; score heads and MLPs"
            )
        worth = np.array([np.inf, *(value[self.nodes.index(name)] for name in layout.sources[1:])])
        ends = np.array([max((worth[s] for s in feeds), default=np.inf) for feeds in layout.feeds])
        lesser = np.minimum(worth[layout.source], ends[layout.destination])
        lesser[np.isinf(lesser)] = value.max()
        return Graph(
            layout=layout,
            scores=-lesser,
            n=self.n,
            method=self.method,
            convention=f"minus the lesser size of the two ends' scores ({self.convention})",
            provenance=dict(self.provenance),
        )


def node_scores(
    model: Any,
    task: Any,
    *,
    method: str = "atp*",
    sites: Any = None,
    positions: bool = False,
    neurons: bool = False,
    dictionaries: Mapping[str, Dictionary] | None = None,
    batch_size: int | None = None,
) -> NodeScores:
    """Score whole parts.

    Parameters
    ----------
    method
        ``"atp"``: attribution patching. ``"atp-qk"``: with the softmax recomputed where a query or key is patched.
        ``"atp*"``: that, and gradients dropped layer by layer, so that effects which cancel are seen. ``"hisp"``: head
        importance from sensitivity (the clean run only). ``"dla"``: direct logit attribution (heads and MLPs).
    sites
        Names or globs; by default heads' outputs and MLPs, and queries and keys too with the corrections.
    positions
        Every position by itself (the last axis of the value) instead of their sum.
    neurons
        Every feature of a site by itself, such as the neurons of ``blocks.*.mlp.hook_post``.
    dictionaries
        Site -> what codes it: its latents and what they leave over are nodes instead of the site.

    Returns
    -------
    NodeScores
        Mean over examples, with the variance and every example's scores.

    Raises
    ------
    InputError
        An unknown method; options it has no meaning for; a model of one layer with ``"atp*"``; a task whose answers
        are not one right and one wrong token with ``"dla"``.
    ModelError
        Queries or keys are to be corrected and the model does not show its attention scores.

    Notes
    -----
    Cost in forward (F) and forward-backward (B) passes: atp F + B; atp-qk 5 F + B; atp* 5 F + layers B; hisp B; dla F.

    References
    ----------
    Kramar, Lieberum, Shah and Nanda 2024, "AtP*", section 3; Michel, Levy and Neubig 2019, "Are sixteen heads really
    better than one?", eq. 2; Elhage et al. 2021, "A mathematical framework for transformer circuits".
    """
    if method not in _SAID:
        raise InputError(f"method={method!r}; it is one of {list(_SAID)}{nearest(method, _SAID)}")
    if method in ("hisp", "dla") and (sites is not None or dictionaries or neurons):
        raise InputError(
            f"method={method!r} scores heads{' and MLPs' if method == 'dla' else ''} as they are"
        )
    if method == "atp*" and model.n_layers < 2:
        raise InputError(
            "method='atp*' drops the gradient of one layer after the other: one layer leaves none"
        )
    if method == "dla":
        return _dla(model, task, positions)
    wanted = "blocks.*.attn.hook_z" if method == "hisp" else sites
    table = parts_of(
        model, wanted, dictionaries or {}, neurons=neurons, corrected=method in ("atp-qk", "atp*")
    )
    gather = {"atp": _atp, "atp-qk": _atp, "atp*": _dropped, "hisp": _sensitivity}[method]
    tally: Tally | None = None
    shape: tuple[int, ...] = ()
    for question in asked(task, batch_size=batch_size):
        found = gather(model, question, table, positions, method)
        shape = tuple(found.shape[1:])
        tally = tally or Tally(int(np.prod(shape)), keep=True)
        tally.add(found.flatten(1))
    assert tally is not None
    return _scores(model, tally, table.names, shape, method)


def _scores(
    model: Any, tally: Tally, names: tuple[str, ...], shape: tuple[int, ...], method: str
) -> NodeScores:
    variance, mean = tally.variance, tally.mean.reshape(shape)
    if method == "hisp":
        mean, variance = _normed(names, mean), None
    ticks = (names, tuple(str(p) for p in range(shape[1]))) if len(shape) > 1 else (names,)
    examples = tally.examples
    return NodeScores(
        name="node score",
        value=mean,
        variance=None if variance is None else variance.reshape(shape),
        stderr=None if variance is None else np.sqrt(variance / tally.n).reshape(shape),
        n=tally.n,
        convention=f"{_SAID[method]}; corrupted: {ABLATIONS['corrupted']}",
        chance=None,
        axes=("node", "position")[: len(shape)],
        ticks=ticks,
        provenance={"model": model.name, "backend": model.backend, "method": method},
        nodes=names,
        examples=None if examples is None else examples.reshape(-1, *shape),
        method=method,
    )


def _normed(names: tuple[str, ...], mean: np.ndarray) -> np.ndarray:
    """Scores over the length of their layer's."""
    layers = np.array([name.partition(".")[0] for name in names])
    out = np.zeros_like(mean)
    for layer in np.unique(layers):
        length = np.linalg.norm(mean[layers == layer])
        out[layers == layer] = mean[layers == layer] / length if length > 0 else 0.0
    return out


def _metric(question: Question) -> Any:
    def metric(logits: Tensor) -> Tensor:
        place = question.position
        return question.score(
            logits if place is None else logits[torch.arange(len(logits)), place.to(logits.device)]
        )

    return metric


def _slopes(model: Any, question: Question, table: Table, dropped: int | None = None) -> dict[Site, Tensor]:
    """The metric's gradient at every site, that of one layer's outputs dropped; nothing at sites of that layer."""
    sites = [s for s in table.asked if dropped is None or s.layer != dropped]
    edits = []
    if dropped is not None:
        outs = [
            s for s in model.sites if s.layer == dropped and s.kind in ("attn_out", "mlp_out", "mixer_out")
        ]
        edits = [edit(outs, Tensor.detach, name="gradient dropped")]
    if not sites:
        return {}
    _, slopes = model.gradients(question.clean, _metric(question), sites, edits=edits)
    return {site: slopes[site] for site in sites}


def _atp(model: Any, question: Question, table: Table, positions: bool, method: str) -> Tensor:
    changes = _Changes(model, question, table, positions)
    return changes.scores(_slopes(model, question, table))


def _dropped(model: Any, question: Question, table: Table, positions: bool, method: str) -> Tensor:
    changes = _Changes(model, question, table, positions)
    total: Tensor | None = None
    for layer in range(model.n_layers):
        found = changes.scores(_slopes(model, question, table, layer)).abs()
        total = found if total is None else total + found
    assert total is not None
    return total / (model.n_layers - 1)


def _sensitivity(model: Any, question: Question, table: Table, positions: bool, method: str) -> Tensor:
    values, slopes = model.gradients(question.clean, _metric(question), list(table.asked))
    rows = [table.summed(s, values[s].double() * slopes[s].double(), positions) for s in table.asked]
    return torch.cat(rows, dim=1).abs()


class _Changes:
    """What patching changes at every site of a question's clean run, ready to be met with slopes."""

    def __init__(self, model: Any, question: Question, table: Table, positions: bool) -> None:
        self.table, self.positions = table, positions
        plain = list(table.plain)
        ports = {kind: [s for s in table.corrected if s.kind == kind] for kind in "qk"}
        wanted = [*plain, *ports["q"], *ports["k"]]
        self.clean = model.capture(question.clean, wanted)
        self.other = model.capture(question.corrupted, wanted)
        self.patterns = {
            kind: recomputed(model, question.clean, {s: self.other[s] for s in sites})
            for kind, sites in ports.items()
            if sites
        }
        self.shape = (len(question), question.clean.ids.shape[1])

    def scores(self, slopes: dict[Site, Tensor]) -> Tensor:
        """[row node (pos)]; 0 at sites without a slope."""
        rows = []
        for site in self.table.sites:
            if site in self.table.corrected:
                rows.append(self._ported(site, slopes))
            elif site in slopes:
                rows.append(
                    self.table.scored(site, self.clean[site], self.other[site], slopes[site], self.positions)
                )
            else:
                n, pos = self.table.width(site), (self.shape[1],) if self.positions else ()
                rows.append(self.clean[site].new_zeros(self.shape[0], n, *pos).double())
        return torch.cat(rows, dim=1)

    def _ported(self, site: Site, slopes: dict[Site, Tensor]) -> Tensor:
        assert site.layer is not None
        slope = slopes.get(Site(kind="pattern", layer=site.layer))
        n = self.table.width(site)
        if slope is None:
            pos = (self.shape[1],) if self.positions else ()
            return torch.zeros(self.shape[0], n, *pos, dtype=torch.float64, device=self.clean[site].device)
        if site.kind == "q":
            found = queries_effect(self.patterns["q"], slope, site.layer)
        else:
            found = keys_effect(self.patterns["k"], slope, site.layer, singly=self.positions)
            found = found.unflatten(1, (n, -1)).sum(2)  # query heads that share keys
        return found if self.positions else found.sum(-1)


def _dla(model: Any, task: Any, positions: bool) -> NodeScores:
    from interp.lenses import direct_logit_attribution

    answers, wrong = getattr(task, "answers", None), getattr(task, "wrong", None)
    if positions or answers is None or wrong is None or answers.shape[1] != 1 or wrong.shape[1] != 1:
        raise InputError(
            "method='dla' attributes the logit of one right answer minus that of one wrong one at the last position; "
            f"{'positions=True has no meaning for it' if positions else 'this task has others'}"
        )
    found = direct_logit_attribution(model, task.clean, answers[:, 0], wrong[:, 0], by="head")
    table = np.array(found.provenance["per_example"])
    names, columns = [], []
    for column, label in enumerate(found.ticks[0]):
        layer, _, part = label.partition(".")
        if part.startswith("head.") or part == "mlp_out":
            names.append(f"m{layer}" if part == "mlp_out" else f"a{layer}.h{part.removeprefix('head.')}")
            columns.append(column)
    tally = Tally(len(names), keep=True)
    tally.add(torch.from_numpy(table[:, columns]))
    return _scores(model, tally, tuple(names), (len(names),), "dla")
