"""Second-order effects: what a neuron does to the answer through the heads that read it later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuits.atlas.weights import head_weights, mlp_output, unembedding
from circuits.stream import Stream, normalized
from interp.errors import InputError
from interp.results import Result

__all__ = ["SecondOrder", "second_order"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SecondOrder(Result):
    """``value`` [neuron, head]: mean change of the logit difference."""

    def strongest(self, k: int = 5) -> list[tuple[int, str, float]]:
        """The ``k`` pairs (neuron, head, effect) of largest size."""
        grid = np.asarray(self.value)
        order = np.argsort(-np.abs(grid), axis=None)[:k]
        pairs = [np.unravel_index(i, grid.shape) for i in order]
        return [(int(a), self.ticks[1][b], float(grid[a, b])) for a, b in pairs]


@torch.no_grad()
def second_order(model: Any, task: Any, *, layer: int) -> SecondOrder:
    r"""Change of the logit difference when what a later head reads of each neuron as value is corrupted, and no more.

    For neuron n of ``layer``, head h of a later block, answer position T:

        sum_t A_h[T, t] (a'_n[t] - a_n[t]) s_1[t] (w_n W_V W_O) s_f[T] (u_right - u_wrong)

    with the clean run's attention A and norm scales s held fixed, a' the corrupted run's activation, and the first
    right and wrong answer of each pair. It is path patching neuron -> head (values) -> logits where there
    are no norms; with norms it leaves out what the change does to their scales.

    Raises
    ------
    InputError
        A layer without an MLP or without later heads, or a task without wrong answers.
    ModelError
        The model's stream is no plain sum.

    Notes
    -----
    Cost: one clean and one corrupted forward pass. Memory: [batch, neuron, head] a later layer.

    References
    ----------
    Gandelsman, Efros and Steinhardt 2024, "Interpreting the second-order effects of neurons in CLIP", eq. 4.
    """
    stream = Stream(model)
    later = [i for i in range(layer + 1, len(stream.parts)) if stream.parts[i].n_heads]
    if not 0 <= layer < len(stream.parts) or stream.parts[layer].spec.mlp is None or not later:
        raise InputError(f"block {layer} of {model.name} has no MLP with heads behind it")
    if task.wrong.shape[1] == 0:
        raise InputError(f"the task {task.name!r} has no wrong answers to compare the right one with")
    site, final = f"blocks.{layer}.mlp.hook_post", f"blocks.{len(stream.parts) - 1}.hook_resid_post"
    wanted = [site, final]
    for i in later:
        wanted += [f"blocks.{i}.hook_resid_pre", f"blocks.{i}.attn.hook_pattern"]
    clean = model.capture(task.clean, wanted)
    change = (model.capture(task.corrupted, site)[site] - clean[site]).double()
    change = change * task.clean.mask[..., None].to(change)
    rows, last = torch.arange(len(task)), task.position
    end = clean[final][rows, last].double()
    _, scale, _ = normalized(end, model.anatomy.ln_final, stream.final_norm)
    out = unembedding(stream)
    wanted_direction = (out[:, task.answers[:, 0]] - out[:, task.wrong[:, 0]]).T * scale  # [batch d_model]
    written = mlp_output(stream, layer)
    effects, names = [], []
    for i in later:
        part, w = stream.parts[i], head_weights(stream, i)
        read = torch.einsum("hdr,hrm,bm->bhd", w["v"], w["o"], wanted_direction)
        _, inverse, _ = normalized(clean[f"blocks.{i}.hook_resid_pre"].double(), part.spec.ln1, part.norm)
        paid = clean[f"blocks.{i}.attn.hook_pattern"][rows, :, last].double()  # [batch head key]
        moved = torch.einsum("bht,btn->bnh", paid * inverse[..., 0][:, None], change)
        effects.append(moved * torch.einsum("nd,bhd->bnh", written, read))
        names += [f"a{i}.h{head}" for head in range(part.n_heads)]
    every: Tensor = torch.cat(effects, dim=2)
    n = len(task)
    return SecondOrder(
        name=f"second-order effects of block {layer}'s neurons",
        value=every.mean(0).cpu().numpy(),
        stderr=(every.std(0) / n**0.5).cpu().numpy() if n > 1 else None,
        n=n,
        convention=(
            "change of the first right answer's logit minus the first wrong one's when a head's values read the "
            "neuron's corrupted activation; attention and norm scales of the clean run"
        ),
        chance=0.0,
        axes=("neuron", "head"),
        ticks=(tuple(map(str, range(every.shape[1]))), tuple(names)),
        provenance={"model": model.name, "task": task.name, "layer": layer},
    )
