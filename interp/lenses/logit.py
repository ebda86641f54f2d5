"""Logit lens: the final norm and the unembedding applied to the residual stream of every layer."""

from __future__ import annotations

from typing import Any

import torch

from interp.lenses.reading import LensResult, read
from interp.lenses.readout import Readout, stream_sites
from interp.metrics.baselines import Baseline, baselined, beside
from interp.models.inputs import as_tokens

__all__ = ["logit_lens"]


def logit_lens(
    model: Any, tokens: Any, sites: Any = None, *, baseline: Baseline = None, seed: int = 0
) -> LensResult:
    """What the model would predict if each layer's stream were its last.

    The final norm is *recomputed* on each layer's stream. With the last layer's scale instead (which is what
    :func:`interp.lenses.direct_logit_attribution` rightly keeps) early layers, whose stream is short, read as near
    uniform whatever they hold.

    Parameters
    ----------
    model
        Any causal pre-norm decoder with an anatomy.
    tokens
        Tokens, texts or ids [batch, pos].
    sites
        The stream before the first and after every block by default.
    baseline, seed
        ``"random_init"`` or ``"shuffled_tokens"``: the curve of that stands in ``.chance``, instead of the divergence
        from the model's mean prediction.

    Returns
    -------
    LensResult
        ``.value`` KL(model || lens) by site, in nats; the last layer's is 0. ``.figure(example)``: token by layer.

    Raises
    ------
    ModelError
        The architecture is unknown, or its stream cannot be read out.
    CheckError
        The last layer's stream does not read out as the model's logits.

    Notes
    -----
    Cost: one forward pass, and one unembedding a site; twice that with a baseline.

    References
    ----------
    nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    given = as_tokens(model, tokens)
    readout, found = Readout.of(model), stream_sites(model, sites)
    last = f"blocks.{model.n_layers - 1}.hook_resid_post"
    acts = model.capture(given, [*map(str, found), last])
    final = model.logits(given)
    mask = given.mask.to(final.device)
    with torch.no_grad():
        readout.check(acts[last][mask], final[mask])
    result = read(
        "logit lens",
        lambda _, stream: readout(stream),
        [acts[site] for site in found],
        final,
        tokens=given,
        sites=found,
        convention="final norm recomputed at each site; KL(model || lens) in nats, mean over tokens",
        provenance={"model": model.name},
    )
    if baseline is None:
        return result
    return beside(result, logit_lens(*baselined(model, given, baseline, seed=seed), sites), baseline)
