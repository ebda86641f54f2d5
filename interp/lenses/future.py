"""Future lens: does a single hidden state already say what the model will say a few tokens later?

A linear map from the stream at layer l and token t to the last stream at token t + N, read out as the model would.
``prompting.py`` asks the same by a learned prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.lenses.reading import LensResult, Readings
from interp.lenses.readout import Readout, stream_sites
from interp.metrics.baselines import Baseline, baselined, beside
from interp.metrics.rows import clustered
from interp.models.inputs import as_tokens
from interp.tokens import Tokens

__all__ = ["future_lens"]


def future_lens(
    model: Any,
    tokens: Any,
    sites: Any = None,
    *,
    ahead: int = 1,
    ridge: float = 1e-3,
    held_out: float = 0.25,
    batch_size: int = 16,
    baseline: Baseline = None,
    seed: int = 0,
) -> LensResult:
    """Precision at 1 of the model's own prediction ``ahead`` tokens later, read from one hidden state, by site.

    Parameters
    ----------
    tokens
        Tokens, texts or ids [batch, pos]; whole sequences are held out.
    ahead
        N: from h_t the model's top token at position t + N is predicted (N = 0: the next token, a fitted logit lens).
    ridge
        Penalty of the map, as a share of the mean eigenvalue of the stream's covariance.
    baseline
        ``"random_init"`` or ``"shuffled_tokens"``: the precision there stands in ``.chance``, and that of permuted
        rows in ``.provenance["permuted"]``.

    Returns
    -------
    LensResult
        Along ``site``; error over held-out sequences. ``.figure(example)``: what each state says the model will say.
        ``.chance``: the same map from the streams of *other* tokens (rows permuted in training), which learns the
        unigrams only. ``.provenance["surprisal"]``: mean nats that the lens gives the model's token, by site.

    Notes
    -----
    Cost: one forward pass a sequence; n d^2 products a site.

    References
    ----------
    Pal et al. 2023, "Future lens", section 3.1.
    """
    given, readout = as_tokens(model, tokens), Readout.of(model)
    found = stream_sites(model, sites)
    if ahead < 0 or given.ids.shape[1] <= ahead:
        raise InputError(f"ahead = {ahead} in sequences of {given.ids.shape[1]} tokens")
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
    n_test = max(1, round(held_out * len(given)))
    if len(given) - n_test < 1:
        raise InputError(f"{len(given)} sequences leave none to fit on; give at least 2")
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    wanted = [*map(str, found), last]
    acts = model.capture(given, wanted, batch_size=batch_size)
    final = model.logits(given, batch_size=batch_size)
    pair = given.mask[:, : given.ids.shape[1] - ahead] & given.mask[:, ahead:]
    rows = torch.zeros_like(pair)
    rows[order[n_test:]] = True
    fit, test = (pair & rows).to(final.device), (pair & ~rows).to(final.device)
    if not bool(fit.any() and test.any()):
        raise InputError(f"no pair of real tokens {ahead} apart on both sides of the split")
    end = pair.shape[1]
    goal, later = acts[last][:, ahead:][fit].double(), final[:, ahead:][test].double().log_softmax(-1)
    answer, out = later.argmax(-1), order[:n_test].sort().values
    told = Readings(len(found), test[out.to(test.device)].cpu().numpy())
    text = torch.nonzero(test)[:, 0]
    shuffle = torch.randperm(int(fit.sum()), generator=torch.Generator().manual_seed(seed + 1))
    value, stderr, chance, surprisal = [], [], [], []
    for i, site in enumerate(found):
        x = acts[site][:, :end].double()
        for target, scores in ((goal, value), (goal[shuffle], chance)):
            with torch.no_grad():
                said = (
                    readout(_mapped(x[fit], target, x[test], ridge).to(acts[last].dtype))
                    .double()
                    .log_softmax(-1)
                )
            hit = (said.argmax(-1) == answer).double()
            scores.append(float(hit.mean()))
            if scores is value:
                error = clustered(hit.cpu(), groups=text.cpu())
                stderr.append(np.nan if error is None else error)
                surprisal.append(float(-said.gather(-1, answer[:, None]).mean()))
                told.fill(i, said, later, answer)
    made = LensResult(
        name=f"future lens, {ahead} ahead", value=np.array(value), n=int(test.sum()), axes=("site",),
        ticks=(tuple(map(str, found)),), stderr=np.array(stderr), chance=np.array(chance),
        convention=f"precision@1 of the model's top token {ahead} positions later, ridge map, sequences held out"
        "; chance: rows permuted",
        provenance={"surprisal": surprisal, "permuted": chance, "ridge": ridge, "seed": seed, "model": model.name},
        **told.fields(Tokens(ids=given.ids[out, :end], mask=given.mask[out, :end], show=given.show), answer),
    )  # fmt: skip
    if baseline is None:
        return made
    network, mixed = baselined(model, given, baseline, seed=seed)
    options: Any = {
        "ahead": ahead,
        "ridge": ridge,
        "held_out": held_out,
        "batch_size": batch_size,
        "seed": seed,
    }
    return beside(made, future_lens(network, mixed, sites, **options), baseline)


def _mapped(x: Tensor, y: Tensor, new: Tensor, ridge: float) -> Tensor:
    """Ridge regression of y on x with an intercept, at new rows."""
    mx, my = x.mean(0), y.mean(0)
    a, b = x - mx, y - my
    gram = a.T @ a
    penalty = ridge * gram.diagonal().mean().clamp_min(1e-30)
    weight = torch.linalg.solve(
        gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), a.T @ b
    )
    return (new - mx) @ weight + my
