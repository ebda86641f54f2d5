"""Reading: what a lens says at each site and token, beside what the model says in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError
from interp.metrics.rows import clustered
from interp.results import Result
from interp.tokens import Tokens

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["LensResult", "Readings", "read"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LensResult(Result):
    """A lens over sites and tokens. ``value``, by site: mean divergence KL(model || lens), in nats; of a future lens
    its precision at 1, and its tokens are those that are held out.

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


class Readings:
    """What a lens says at the kept tokens of [batch, pos], filled in site by site."""

    def __init__(self, n_sites: int, keep: np.ndarray) -> None:
        self.keep = keep
        self.divergence, self.entropy, self.surprisal = (
            np.full((n_sites, *keep.shape), np.nan) for _ in range(3)
        )
        self.top = np.full((n_sites, *keep.shape), -1, dtype=np.int64)

    def fill(self, i: int, logp: Tensor, goal: Tensor, best: Tensor) -> None:
        """Site ``i``: the lens's and the model's log probabilities [token, vocabulary], and the model's top tokens."""
        for array, values in (
            (self.divergence, (goal.exp() * (goal - logp)).sum(-1)),
            (self.entropy, -(logp.exp() * logp).sum(-1)),
            (self.surprisal, -logp.gather(-1, best[:, None])[:, 0]),
            (self.top, logp.argmax(-1)),
        ):
            array[i][self.keep] = values.cpu().numpy()

    def fields(self, tokens: Tokens, best: Tensor) -> dict[str, Any]:
        """The fields of a LensResult over these tokens."""
        right = self.top[:, self.keep] == best.cpu().numpy()
        rows: Any = self.top.tolist()
        said = tuple(
            tuple(tuple(tokens.show(t) if t >= 0 else "" for t in row) for row in block) for block in rows
        )
        return {
            "divergence": self.divergence, "entropy": self.entropy, "surprisal": self.surprisal, "top": self.top,
            "agreement": right.mean(1), "words": tuple(tuple(row) for row in tokens.strings), "said": said,
        }  # fmt: skip


def read(
    name: str,
    logits_of: Callable[[int, Tensor], Tensor],
    streams: Sequence[Tensor],
    final: Tensor,
    *,
    tokens: Tokens,
    sites: Sequence[Any],
    convention: str,
    provenance: dict[str, Any],
) -> LensResult:
    """Read every stream [batch, pos, d] by ``logits_of(site index, stream)``, one site at a time."""
    mask = tokens.mask.to(final.device)
    told = Readings(len(streams), mask.cpu().numpy())
    with torch.no_grad():
        goal, best = final[mask].double().log_softmax(-1), final[mask].argmax(-1)
        for i, stream in enumerate(streams):
            told.fill(i, logits_of(i, stream)[mask].double().log_softmax(-1), goal, best)
        chance = float((goal.exp() * (goal - goal.exp().mean(0).log())).sum(-1).mean())
    texts = np.nonzero(told.keep)[0]
    errors = [clustered(torch.from_numpy(site[told.keep]), groups=texts) for site in told.divergence]
    spread = np.array([np.nan if error is None else error for error in errors])
    sure = bool(np.isfinite(spread).all())
    why = {} if sure else {"no_stderr": "one text: the error is over texts"}
    return LensResult(
        name=name,
        value=np.array([np.nanmean(told.divergence[i]) for i in range(len(streams))]),
        stderr=spread if sure else None,
        chance=chance,
        n=int(told.keep.sum()),
        axes=("site",),
        ticks=(tuple(map(str, sites)),),
        convention=f"{convention}; chance: the model's mean prediction, said at every token",
        provenance=why | provenance,
        **told.fields(tokens, best),
    )
