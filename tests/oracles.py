"""Slow, obvious reference code: what the toolkit computes fast, written once more to be read at a glance."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor

from interp.toys import Transformer


def all_edges(n_layers: int, n_heads: int) -> list[str]:
    """Every edge of a transformer with attention and MLPs, by hand: who has written before whom."""
    edges: list[str] = []
    written = ["input"]
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        edges += [f"{source}->{head}<{port}>" for source in written for head in heads for port in "qkv"]
        written += heads
        edges += [f"{source}->m{layer}" for source in written]
        written += [f"m{layer}"]
    return edges + [f"{source}->logits" for source in written]


def edge_forward(
    module: Transformer, ids: Tensor, edges: Collection[str], *, foreign: Tensor | None = None
) -> Tensor:
    """The forward pass of a toy transformer along explicit edges, in float64.

    A destination's input is the sum of the terms of the sources that have an edge to it. A source without that edge
    contributes nothing there or, with ``foreign`` ids, the term that it has in a whole run on those.
    """
    nodes = _run(copy.deepcopy(module).double(), ids, set(edges), foreign)
    return nodes["logits"]


@torch.no_grad()
def _run(module: Transformer, ids: Tensor, edges: set[str], foreign: Tensor | None) -> dict[str, Tensor]:
    shape = module.shape
    others: dict[str, Tensor] = {}
    if foreign is not None:
        everything = set(all_edges(shape.n_layers, shape.n_heads))
        others = _run(module, foreign, everything, None)
    pos = ids.shape[1]
    terms = {"input": module.embed.weight[ids] + module.pos_embed.weight[:pos]}

    def entering(destination: str) -> Tensor:
        total = torch.zeros_like(terms["input"])
        for source, term in terms.items():
            if f"{source}->{destination}" in edges:
                total = total + term
            elif foreign is not None:
                total = total + others[source]
        return total

    for layer in range(shape.n_layers):
        attn, mlp = module.blocks[layer].attn, module.blocks[layer].mlp
        written = {}
        for head in range(shape.n_heads):
            rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
            name = f"a{layer}.h{head}"
            q = entering(f"{name}<q>") @ attn.q.weight[rows].T
            k = entering(f"{name}<k>") @ attn.k.weight[rows].T
            v = entering(f"{name}<v>") @ attn.v.weight[rows].T
            weights = (q @ k.mT / shape.d_head**0.5).exp().tril()  # a query sees the keys up to itself
            z = weights / weights.sum(-1, keepdim=True) @ v
            written[name] = z @ attn.o.weight[:, rows].T
        terms.update(written)
        hidden = (entering(f"m{layer}") @ mlp.up.weight.T).clamp(min=0)
        terms[f"m{layer}"] = hidden @ mlp.down.weight.T
    return {**terms, "logits": entering("logits") @ module.unembed.weight.T}


def edge_scores(
    module: Transformer, clean: Tensor, corrupted: Tensor, metric, *, points: Collection[float]
) -> Tensor:
    """Every edge's attribution score [example, edge] by its definition, on a graph built by hand, in float64.

    Each destination reads a stream of its own; the score of an edge is the source's corrupted minus clean term, times
    the metric's gradient at that stream, averaged over inputs that lie ``points`` of the way from corrupted to clean.
    """
    module = copy.deepcopy(module).double()
    edges = all_edges(module.shape.n_layers, module.shape.n_heads)
    start, end = (_unfolded(module, _embedded(module, ids))[0] for ids in (corrupted, clean))
    total = torch.zeros(len(clean), len(edges), dtype=torch.float64)
    for point in points:
        x = start["input"] + point * (end["input"] - start["input"])
        _, reads, logits = _unfolded(module, x)
        names = list(reads)
        grads = dict(
            zip(names, torch.autograd.grad(metric(logits).sum(), [reads[n] for n in names]), strict=True)
        )
        for i, edge in enumerate(edges):
            source, destination = edge.split("->")
            change = (start[source] - end[source]).detach()
            total[:, i] += (change * grads[destination]).sum((1, 2)) / len(points)
    return total


def _embedded(module: Transformer, ids: Tensor) -> Tensor:
    return (module.embed.weight[ids] + module.pos_embed.weight[: ids.shape[1]]).detach()


def _unfolded(module: Transformer, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Terms of all sources, the stream that each destination reads, and the logits."""
    shape = module.shape
    terms, reads = {"input": x}, {}

    def entering(destination: str) -> Tensor:
        # plus a zero of its own, so that the gradient there is this destination's alone
        own = torch.zeros_like(x, requires_grad=True)
        reads[destination] = own
        return sum(terms.values()) + own

    for layer in range(shape.n_layers):
        attn, mlp = module.blocks[layer].attn, module.blocks[layer].mlp
        written = {}
        for head in range(shape.n_heads):
            rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
            name = f"a{layer}.h{head}"
            q, k, v = (
                entering(f"{name}<{port}>") @ part.weight[rows].T
                for port, part in zip("qkv", (attn.q, attn.k, attn.v), strict=True)
            )
            scores = (q @ k.mT / shape.d_head**0.5).masked_fill(
                torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1), -torch.inf
            )
            written[name] = scores.softmax(-1) @ v @ attn.o.weight[:, rows].T
        terms.update(written)
        terms[f"m{layer}"] = (entering(f"m{layer}") @ mlp.up.weight.T).relu() @ mlp.down.weight.T
    return terms, reads, entering("logits") @ module.unembed.weight.T
