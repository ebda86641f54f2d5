"""Direct logit attribution: how much each part of the network adds to a logit difference, at the scale of the pass.

The last stream is a sum of what the embeddings, heads and layers wrote, and the final norm is linear once its scale is
given: so the logit difference is a sum too, exactly.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InputError
from interp.lenses.readout import Readout
from interp.metrics.baselines import Baseline, baselined, beside
from interp.models.anatomy import norm_eps, norm_weight, parameter
from interp.models.inputs import as_tokens
from interp.results import Result

__all__ = ["direct_logit_attribution"]


def direct_logit_attribution(
    model: Any,
    tokens: Any,
    answers: Int[Tensor, "batch"],
    wrong: Int[Tensor, "batch"] | None = None,
    *,
    by: Literal["layer", "head"] = "layer",
    baseline: Baseline = None,
    seed: int = 0,
) -> Result:
    """The share of each component in the logit of ``answers`` (minus that of ``wrong``) at the last token.

    Parameters
    ----------
    answers, wrong
        [batch] token ids; without ``wrong`` the logit is taken relative to the mean logit of the vocabulary.
    by
        ``"layer"``: each attention and MLP output. ``"head"``: attention split by head, its output bias by itself.
    baseline, seed
        ``"random_init"`` or ``"shuffled_tokens"``: the shares there (for the same answers) stand in ``.chance``.

    Returns
    -------
    Result
        Along ``component``, mean over examples with its error; the components sum to the logit difference exactly
        (``.provenance["total"]``; rounding in ``["residue"]``). ``norm bias`` and ``unembed bias`` are components.
        ``.provenance["per_example"]`` [batch][component].

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
    directions = _directions(readout, answers, wrong, len(given))
    names, sites = _components(model, by)
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    acts = model.capture(given, [*dict.fromkeys(sites.values()), last], positions="last")
    stream = acts[last][:, 0].detach().double()
    parts: dict[str, Tensor] = {}
    for name in names:
        value = acts[sites[name]][:, 0].double()
        if value.ndim == 3:
            parts |= {f"{name}.{head}": value[:, head] for head in range(value.shape[1])}
        elif by == "head" and name.endswith("attn_out"):
            heads = acts[sites[name.replace("attn_out", "head")]][:, 0].double().sum(1)
            parts[name.replace("attn_out", "attn bias")] = value - heads
        else:
            parts[name] = value
    parts["unwritten"] = stream - torch.stack(list(parts.values())).sum(0)
    table, total = _through_norm(model, readout, stream, parts, directions, answers, wrong)
    residue = float((table.sum(1) - total).abs().max())
    labels = (*parts, "norm bias", "unembed bias")
    keep = [
        i for i, label in enumerate(labels) if label != "unwritten" or float(table[:, i].abs().max()) > 1e-3
    ]
    value = table[:, keep].cpu().numpy()
    n = len(value)
    made = Result(
        name="direct logit attribution",
        value=value.mean(0),
        stderr=value.std(0, ddof=1) / n**0.5 if n > 1 else None,
        n=n,
        axes=("component",),
        ticks=(tuple(labels[i] for i in keep),),
        convention="logits at the last token, final norm at the scale of the pass; components sum to the total"
        + ("" if wrong is not None else "; relative to the mean logit"),
        provenance={
            "total": float(total.mean()),
            "residue": residue,
            "per_example": value.tolist(),
            "model": model.name,
            "no_chance": "compare with baseline=",
            **({} if n > 1 else {"no_stderr": "one example: the error is over examples"}),
        },
    )
    if baseline is None:
        return made
    network, mixed = baselined(model, given, baseline, seed=seed)
    return beside(made, direct_logit_attribution(network, mixed, answers, wrong, by=by), baseline)


def _directions(readout: Readout, answers: Tensor, wrong: Tensor | None, n: int) -> Tensor:
    table = readout.directions().detach().double()
    for ids in (answers, wrong):
        if ids is not None and (ids.shape != (n,) or int(ids.min()) < 0 or int(ids.max()) >= table.shape[1]):
            raise InputError(f"answers must be [{n}] token ids below {table.shape[1]}; got {list(ids.shape)}")
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
