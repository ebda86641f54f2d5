"""Direct logit attribution: how much each part of the network adds to a logit difference, at the scale of the pass.

The last stream is a sum of what the embeddings, heads and layers wrote, and the final norm is linear once its scale is
given: so the logit difference is a sum too, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from interp.errors import InputError
from interp.lenses.readout import Readout
from interp.metrics.baselines import Baseline, baselined, beside
from interp.metrics.rows import clustered
from interp.models.anatomy import norm_eps, norm_weight, parameter
from interp.models.inputs import as_tokens
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Attribution", "direct_logit_attribution"]


def direct_logit_attribution(
    model: Any,
    tokens: Any,
    answers: Int[Tensor, "batch"] | Int[Tensor, "batch pos"],
    wrong: Int[Tensor, "batch"] | Int[Tensor, "batch pos"] | None = None,
    *,
    by: Literal["layer", "head"] = "layer",
    baseline: Baseline = None,
    seed: int = 0,
) -> Attribution:
    """The share of each component in the logit of ``answers`` (minus that of ``wrong``), at the last token or at all.

    Parameters
    ----------
    answers, wrong
        [batch] token ids, asked for at the last token; or [batch, pos], asked for at every real token (such as
        ``model.logits(tokens).argmax(-1)``). Without ``wrong`` the logit is taken relative to the mean logit of the
        vocabulary.
    by
        ``"layer"``: each attention and MLP output. ``"head"``: attention split by head, its output bias by itself.
    baseline, seed
        ``"random_init"`` or ``"shuffled_tokens"``: the shares there (for the same answers) stand in ``.chance``.

    Returns
    -------
    Attribution
        Along ``component``, mean over examples (at every token: over tokens, the error over texts); the components sum
        to the logit difference exactly (``.provenance["total"]``; rounding in ``["residue"]``). ``norm bias`` and
        ``unembed bias`` are components. ``.provenance["per_example"]`` [batch][component] (at every token: ``.grid``).
        ``.figure(example)``: token by component.

    Notes
    -----
    The final norm keeps the scale of the actual pass for every component (``ln_final``'s cached scale): recomputing it
    would answer another question, :func:`interp.lenses.logit_lens`. Where the model caps logits (Gemma 2) the
    attribution is of the logits before the cap. Cost: one forward pass.

    References
    ----------
    Elhage et al. 2021, "A mathematical framework for transformer circuits".
    """
    if by not in ("layer", "head"):
        raise InputError(f"by={by!r}; it is 'layer' or 'head'")
    given, readout = as_tokens(model, tokens), Readout.of(model)
    every = answers.ndim == 2
    where = _Places(given, every)
    where.check(answers, wrong)
    right, other = where.of(answers), None if wrong is None else where.of(wrong)
    directions = _directions(readout, right, other)
    names, sites = _components(model, by)
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    acts = model.capture(given, [*dict.fromkeys(sites.values()), last], positions=None if every else "last")
    stream = where.of(acts[last]).detach().double()
    parts: dict[str, Tensor] = {}
    for name in names:
        value = where.of(acts[sites[name]]).double()
        if value.ndim == 3:
            parts |= {f"{name}.{head}": value[:, head] for head in range(value.shape[1])}
        elif by == "head" and name.endswith("attn_out"):
            heads = where.of(acts[sites[name.replace("attn_out", "head")]]).double().sum(1)
            parts[name.replace("attn_out", "attn bias")] = value - heads
        else:
            parts[name] = value
    parts["unwritten"] = stream - torch.stack(list(parts.values())).sum(0)
    table, total = _through_norm(model, readout, stream, parts, directions, right, other)
    labels = (*parts, "norm bias", "unembed bias")
    keep = [
        i for i, label in enumerate(labels) if label != "unwritten" or float(table[:, i].abs().max()) > 1e-3
    ]
    made = where.result(
        table[:, keep].cpu().numpy(), tuple(labels[i] for i in keep), relative=wrong is None,
        provenance={"total": float(total.mean()), "residue": float((table.sum(1) - total).abs().max()),
                    "model": model.name, "no_chance": "compare with baseline="},
    )  # fmt: skip
    if baseline is None:
        return made
    network, mixed = baselined(model, given, baseline, seed=seed)
    return beside(made, direct_logit_attribution(network, mixed, answers, wrong, by=by), baseline)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Attribution(Result):
    """Shares of a logit by component. ``grid`` [component, batch, pos]: nan where none was asked for."""

    grid: np.ndarray
    words: tuple[tuple[str, ...], ...]
    """The input's tokens as text [batch][pos]."""

    def figure(self, example: int = 0) -> go.Figure:
        """Token by component, the first component at the bottom; logits."""
        from interp.plots import heatmap

        if not 0 <= example < len(self.words):
            raise InputError(f"example {example} of {len(self.words)}")
        there = np.flatnonzero(np.isfinite(self.grid[:, example]).any(0))
        return heatmap(
            self.grid[::-1, example][:, there], rows=list(self.ticks[0])[::-1], diverging=True, title=self.name,
            columns=[f"{i} {self.words[example][i]}" for i in there], unit="logit", x_title="token",
            y_title="component",
        )  # fmt: skip


class _Places:
    """Where logits are attributed: the last real token of each text, or every one."""

    def __init__(self, given: Tokens, every: bool) -> None:
        self.given, self.every = given, every
        self.mask = given.mask
        if not every:
            steps = torch.arange(given.ids.shape[1], device=given.mask.device)
            last = torch.where(given.mask, steps, -1).amax(1)
            self.mask = steps == last[:, None]

    def check(self, answers: Tensor, wrong: Tensor | None) -> None:
        """Raise InputError unless both hold one token id a place."""
        shape, one = (self.given.ids.shape, "token") if self.every else (self.given.ids.shape[:1], "text")
        if answers.shape != shape:
            raise InputError(f"answers must be {list(shape)}, one a {one}; got {list(answers.shape)}")
        if wrong is not None and wrong.shape != shape:
            raise InputError(f"wrong must be {list(shape)}, as answers are; got {list(wrong.shape)}")

    def of(self, values: Tensor) -> Shaped[Tensor, "row ..."]:
        """The values of [batch, pos, ...] at the places; [batch, 1, ...] and [batch] are those of the last token."""
        if not self.every:
            return values if values.ndim == 1 else values[:, 0]
        return values[self.mask.to(values.device)]

    def result(
        self, table: np.ndarray, labels: tuple[str, ...], *, relative: bool, provenance: dict[str, Any]
    ) -> Attribution:
        """Shares [row, component] as a Result."""
        mask = self.mask.cpu().numpy()
        grid = np.full((len(labels), *mask.shape), np.nan)
        grid[:, mask] = table.T
        texts = np.nonzero(mask)[0]
        spread = [clustered(torch.from_numpy(column), groups=texts) for column in table.T]
        several = None not in spread
        what = "every token, error over texts" if self.every else "the last token"
        further: dict[str, Any] = {} if self.every else {"per_example": table.tolist()}
        if not several:
            further["no_stderr"] = "one example: the error is over examples"
        return Attribution(
            name="direct logit attribution", value=table.mean(0), n=len(table), axes=("component",), ticks=(labels,),
            stderr=np.array(spread) if several else None, grid=grid,
            convention=f"logits at {what}, final norm at the scale of the pass; components sum to the total"
            + "; relative to the mean logit" * relative,
            words=tuple(tuple(row) for row in self.given.strings), provenance=provenance | further,
        )  # fmt: skip


def _directions(readout: Readout, answers: Tensor, wrong: Tensor | None) -> Tensor:
    table = readout.directions().detach().double()
    for ids in (answers, wrong):
        if ids is not None and (int(ids.min()) < 0 or int(ids.max()) >= table.shape[1]):
            raise InputError(
                f"answers are token ids below {table.shape[1]}; got {int(ids.min())} to {int(ids.max())}"
            )
    reference = table.mean(1, keepdim=True) if wrong is None else table[:, wrong]
    return (table[:, answers] - reference).T * readout.scale


def _components(model: Any, by: str) -> tuple[list[str], dict[str, str]]:
    """Component -> site, in forward order."""
    sites = {"embed": "hook_embed"}
    if any(site.kind == "pos_embed" for site in model.sites):
        sites["pos_embed"] = "hook_pos_embed"
    kinds = {(site.kind, site.layer) for site in model.sites}
    for layer in range(model.n_layers):
        if by == "head" and ("result", layer) in kinds:
            sites[f"{layer}.head"] = f"blocks.{layer}.attn.hook_result"
        for kind in ("attn_out", "mixer_out", "mlp_out"):
            if (kind, layer) in kinds:
                sites[f"{layer}.{kind}"] = f"blocks.{layer}.hook_{kind}"
    return list(sites), sites


def _through_norm(
    model: Any,
    readout: Readout,
    stream: Tensor,
    parts: dict[str, Tensor],
    directions: Tensor,
    answers: Tensor,
    wrong: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Contributions [batch, component], the norm's and the unembedding's bias last, and the exact totals [batch]."""
    norm = model.anatomy.ln_final
    pieces = torch.stack(list(parts.values()), 1)
    shift = None
    if norm is not None:
        assert readout.norm is not None  # they come from one anatomy
        weight, shift = norm_weight(readout.norm, norm), parameter(readout.norm, "bias")
        if norm.kind == "layer":
            pieces = pieces - pieces.mean(-1, keepdim=True)
            stream = stream - stream.mean(-1, keepdim=True)
        scale = (stream.square().mean(-1) + norm_eps(readout.norm)).sqrt()
        pieces = pieces / scale[:, None, None]
        if weight is not None:
            pieces = pieces * weight.detach().double()
    made = torch.einsum("bcd,bd->bc", pieces, directions)
    zero = torch.zeros(len(made), dtype=torch.float64, device=made.device)
    from_norm = zero if shift is None else directions @ shift.detach().double()
    bias = readout.bias()
    from_bias = zero
    if bias is not None:
        b = bias.detach().double() * readout.scale
        from_bias = b[answers] - (b.mean() if wrong is None else b[wrong])
    total = made.sum(1) + from_norm + from_bias
    return torch.cat([made, from_norm[:, None], from_bias[:, None]], 1), total
