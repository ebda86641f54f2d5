"""Proof and audit: does a site fire, and does an edit there reach the logits?

A hook that fires but does nothing is the field's most expensive silent error. :func:`prove` is run
whenever a model is loaded; :func:`audit` perturbs every site and reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.capture import capture, gradients, logits
from interp.edits import edit, replace
from interp.errors import CheckError, InterpError
from interp.models.anatomy import norm_weight, parameter
from interp.models.network import Network
from interp.showing import Shown
from interp.sites import Site

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AuditResult", "audit", "prove"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditResult(Shown):
    """What each site does: per site whether it ``fires``, whether a perturbation moves the logits
    (``causal``, with the largest logit change ``effect``), whether a gradient arrives, and a ``note``."""

    model: str
    backend: str
    rows: tuple[dict[str, Any], ...]

    @property
    def inert(self) -> tuple[str, ...]:
        """Sites that fire but whose edits change nothing."""
        return tuple(row["site"] for row in self.rows if row["fires"] and not row["causal"])

    def to_frame(self) -> pd.DataFrame:
        """One row a site."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def _listing(self) -> pd.DataFrame:
        return self.to_frame()

    def __repr__(self) -> str:
        causal = sum(row["causal"] for row in self.rows)
        return (
            f"AuditResult({self.model}, {self.backend}: {causal} of {len(self.rows)} sites causal, "
            f"inert: {list(self.inert)})"
        )


def audit(model: Network, *, tokens: Any = None, sites: Any = None) -> AuditResult:
    """See :meth:`interp.models.base.Model.audit`."""
    tokens = model.probe() if tokens is None else tokens
    found = tuple(model.sites) if sites is None else model.find(sites)
    plain = logits(model, tokens)
    rows = []
    for site in found:
        row: dict[str, Any] = {
            "site": str(site),
            "fires": False,
            "causal": False,
            "effect": 0.0,
            "gradient": False,
            "note": "",
        }
        try:
            capture(model, tokens, site)
            row["fires"] = True
            row["effect"] = _effect(model, tokens, site, plain)
            row["causal"] = row["effect"] > 0
            gradients(model, tokens, _total, site)
            row["gradient"] = True
        except InterpError as error:
            row["note"] = str(error)
        rows.append(row)
    return AuditResult(model=model.name, backend=model.backend, rows=tuple(rows))


def _total(outputs: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, outputs[0].numel(), device=outputs.device).view(outputs.shape[1:])
    return (outputs * weight).flatten(1).sum(-1)


def _effect(model: Network, tokens: Any, site: Site, plain: Tensor) -> float:
    """The largest change of a logit when the site is perturbed."""
    return float((logits(model, tokens, edits=[edit(site, _perturbed)]) - plain).abs().max())


def _perturbed(value: Tensor) -> Tensor:
    """Scaled, mixed with itself turned over, and shifted; masked scores stay masked.

    All three: turning over leaves constants alone, scaling leaves what a norm follows alone, and at the
    first position a pattern is one key of weight 1 whatever its score.
    """
    seen = value.clamp(-10, 10)
    changed = 0.5 * value + 0.25 * seen.flip(-1) + 0.1 * seen.abs().mean()
    return torch.where(value > torch.finfo(value.dtype).min / 2, changed, value)


def misdescribed(model: Network) -> str | None:
    """What a model does that its anatomy does not say, None if it fits: an architecture may look like a known one.

    The residual stream must be the sum of what is written to it, the stream between attention and MLP the
    same whether it is looked at or worked on, and norms what their kind says. Cost: two short passes.
    """
    if model.anatomy is None or model.d_vocab is None:
        return None
    kinds = {"resid_pre", "attn_out", "mixer_out", "mlp_out", "resid_mid", "resid_post"}
    norms = {"ln1", "ln1_normalized", "ln_final", "ln_final_normalized"}
    sites = [
        s for s in model.sites if s.kind in kinds | norms and s.layer in (0, None) and s not in model.inert
    ]
    tokens = model.probe()
    acts = capture(model, tokens, sites)
    worked = capture(model, tokens, sites, edits=[edit("hook_embed", lambda t: t)])

    def at(kind: str, layer: int | None = 0) -> Tensor | None:
        site = Site(kind=kind, layer=layer)
        return acts[site].double() if site in acts else None

    def close(a: Tensor, b: Tensor) -> bool:
        return bool(
            (a - b).abs().max() <= 0.02 * b.abs().max()
        )  # a wrong formula is off by far more than rounding

    mid, writes = Site(kind="resid_mid", layer=0), [at(kind) for kind in ("attn_out", "mixer_out", "mlp_out")]
    before, after = at("resid_pre"), at("resid_post")
    if model.anatomy.is_sum and before is not None and after is not None:
        if not close(before + sum(w for w in writes if w is not None), after):
            return "its residual stream is not the sum of what its layers write"
        if mid in acts and not close(worked[mid].double(), acts[mid].double()):
            return "what stands between attention and MLP is not the stream"
    for name, layer, norm in (
        ("ln1", 0, model.anatomy.blocks[0].ln1),
        ("ln_final", None, model.anatomy.ln_final),
    ):
        plain, out = at(f"{name}_normalized", layer), at(name, layer)
        if norm is not None and plain is not None and out is not None:
            module = model.submodule(norm.path)
            weight, bias = norm_weight(module, norm), parameter(module, "bias")
            formula = plain * (1 if weight is None else weight.double()) + (
                0 if bias is None else bias.double()
            )
            if not close(formula, out):
                return f"its norm {norm.path!r} computes something else"
    return None


def prove(model: Network, *, tokens: Any = None) -> None:
    """Capturing changes nothing, an identity edit nothing, a zero edit something; else CheckError.

    Models whose input is not token ids are proved when ``tokens`` are given. Cost: four passes over at
    most 2 x 4 tokens.
    """
    if tokens is None:
        if model.d_vocab is None:
            return
        tokens = model.probe()
    plain = logits(model, tokens)
    if not torch.isfinite(plain).all():
        raise CheckError(f"{model.name}: logits are not finite on a short input")
    middle = [s for s in model.sites if s.kind == "resid_post"] or [
        s for s in model.sites if s.kind == "module"
    ]
    if not middle:
        raise CheckError(f"{model.name} has no site to capture at")
    chosen = middle[len(middle) // 2] if middle[0].kind == "resid_post" else middle[-1]
    capture(model, tokens, chosen)
    if not torch.equal(logits(model, tokens), plain):
        raise CheckError(
            f"{model.name}: the logits changed after a capture at {chosen}, or the model is not deterministic"
        )
    if not torch.equal(logits(model, tokens, edits=[edit(chosen, lambda t: t.clone())]), plain):
        raise CheckError(f"{model.name}: an identity edit at {chosen} changed the logits")
    if torch.equal(logits(model, tokens, edits=[replace(chosen, 0.0)]), plain):
        raise CheckError(f"{model.name}: zeroing {chosen} changed no logit; edits there do nothing")
