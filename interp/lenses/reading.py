"""Reading: what a lens says at each site and token, beside what the model says in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["LensResult", "read"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LensResult(Result):
    """A lens over sites and tokens. ``value``: mean divergence KL(model || lens), in nats, by site.

    Arrays are [site, batch, pos]; padding holds nan (-1 for ids).
    """

    divergence: np.ndarray
    """KL of the model's final distribution from the lens's, nats."""
    entropy: np.ndarray
    """Entropy of the lens's distribution, nats."""
    surprisal: np.ndarray
    """-log probability that the lens gives the model's own top token, nats."""
    top: np.ndarray
    """The lens's top token ids [site, batch, pos]."""
    agreement: np.ndarray
    """Share of tokens at which the lens's top token is the model's, by site."""
    words: tuple[tuple[str, ...], ...]
    """The input's tokens as text [batch][pos]."""
    said: tuple[tuple[tuple[str, ...], ...], ...]
    """The lens's top tokens as text [site][batch][pos]."""

    def figure(self, example: int = 0, *, shade: str = "entropy") -> go.Figure:
        """Token by layer: each cell the lens's top token, coloured by ``entropy``, ``divergence`` or ``surprisal``."""
        from interp.plots import lens_grid

        if shade not in ("entropy", "divergence", "surprisal"):
            raise InputError(f"shade={shade!r}; it is 'entropy', 'divergence' or 'surprisal'")
        if not 0 <= example < len(self.words):
            raise InputError(f"example {example} of {len(self.words)}")
        return lens_grid(
            getattr(self, shade)[:, example],
            said=[site[example] for site in self.said],
            words=self.words[example],
            sites=self.ticks[0],
            title=self.name,
            unit=f"{shade} (nats)",
        )


def read(
    name: str,
    logits_of: Callable[[int, Tensor], Tensor],
    streams: Sequence[Tensor],
    final: Tensor,
    *,
    tokens: Any,
    sites: Sequence[Any],
    convention: str,
    provenance: dict[str, Any],
) -> LensResult:
    """Read every stream [batch, pos, d] by ``logits_of(site index, stream)``, one site at a time."""
    mask = tokens.mask.to(final.device)
    goal = final.double().log_softmax(-1)
    best = final.argmax(-1)
    shape = (len(streams), *mask.shape)
    divergence, entropy, surprisal = (np.full(shape, np.nan) for _ in range(3))
    top = np.full(shape, -1, dtype=np.int64)
    keep = mask.cpu().numpy()
    with torch.no_grad():
        for i, stream in enumerate(streams):
            logp = logits_of(i, stream).double().log_softmax(-1)
            kl = (goal.exp() * (goal - logp)).sum(-1)
            pairs = (
                (divergence, kl),
                (entropy, -(logp.exp() * logp).sum(-1)),
                (surprisal, -logp.gather(-1, best[..., None])[..., 0]),
                (top, logp.argmax(-1)),
            )
            for array, values in pairs:
                array[i][keep] = values[mask].cpu().numpy()
        said_always = goal[mask].exp().mean(0).log()
        chance = float((goal[mask].exp() * (goal[mask] - said_always)).sum(-1).mean())
    right = top == np.where(keep, best.cpu().numpy(), -2)
    n = int(keep.sum())
    per_text = [np.nanmean(np.where(keep, divergence[i], np.nan), axis=1) for i in range(len(streams))]
    spread = np.array([np.std(v, ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.nan for v in per_text])
    sure = bool(np.isfinite(spread).all())
    why = {} if sure else {"no_stderr": "one text: the error is over texts"}
    grid: Any = top.tolist()
    said = tuple(
        tuple(tuple(tokens.show(t) if t >= 0 else "" for t in row) for row in block) for block in grid
    )
    return LensResult(
        name=name,
        value=np.array([np.nanmean(divergence[i]) for i in range(len(streams))]),
        stderr=spread if sure else None,
        chance=chance,
        n=n,
        axes=("site",),
        ticks=(tuple(map(str, sites)),),
        convention=f"{convention}; chance: the model's mean prediction, said at every token",
        provenance=why | provenance,
        divergence=divergence,
        entropy=entropy,
        surprisal=surprisal,
        top=top,
        agreement=right.sum((1, 2)) / n,
        words=tuple(tuple(row) for row in tokens.strings),
        said=said,
    )
