"""Neurons by when they fire: never, on a handful of tokens, or at certain positions; and what they then suppress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from circuits.atlas.weights import mlp_output, unembedding
from circuits.stream import Stream
from interp.errors import InputError
from interp.models.inputs import as_tokens
from interp.results import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NeuronCensus", "neuron_census"]

COVERED = 0.95
"""The share of a detector's firings that its tokens must cover."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NeuronCensus(Result):
    """``value`` [neuron]: the share of tokens at which it fires."""

    dead: np.ndarray
    """[neuron] never fires."""
    detector: np.ndarray
    """[neuron] at most ``most_tokens`` tokens cover 95 % of its firings."""
    triggers: tuple[tuple[int, ...], ...]
    """[neuron] those token ids, the commonest first; empty where it is no detector."""
    promotes: np.ndarray
    """[neuron] mean over its triggers of their logit's change when it fires, in standard deviations over the
    vocabulary; negative: it suppresses what it detects. nan where it is no detector."""
    information: np.ndarray
    """[neuron] mutual information of firing and position, bits."""
    positional: np.ndarray
    """[neuron] that is at least ``least_bits``, and more than chance explains."""

    @property
    def suppressing(self) -> np.ndarray:
        """[neuron] a detector that lowers its own triggers."""
        return self.detector & (np.nan_to_num(self.promotes) < 0)

    def table(self) -> pd.DataFrame:
        """A row per neuron."""
        import pandas as pd

        return pd.DataFrame(
            {
                "neuron": np.arange(len(self.dead)),
                "fires": self.value,
                "dead": self.dead,
                "detector": self.detector,
                "triggers": [list(one) for one in self.triggers],
                "promotes": self.promotes,
                "position bits": self.information,
                "positional": self.positional,
            }
        )


@torch.no_grad()
def neuron_census(
    model: Any,
    tokens: Any,
    *,
    layer: int,
    grams: int = 1,
    most_tokens: int = 5,
    least_bits: float = 0.05,
    batch_size: int = 64,
    budget: float = 2e9,
) -> NeuronCensus:
    """Count when each neuron of an MLP fires (its activation is above zero).

    Parameters
    ----------
    tokens
        Texts the model reads; padding is left out.
    grams
        1: a detector's triggers are the current token; 2: the pair of the token before and it (``triggers`` then hold
        ``before * d_vocab + token``).
    most_tokens
        A detector's triggers at most.
    least_bits
        Mutual information with the position from which on a neuron is called positional.
    budget
        Bytes that the count of triggers may take.

    Raises
    ------
    InputError
        No MLP in that block, or a count larger than the budget: says its size.

    Notes
    -----
    Cost: one forward pass. The position information's ``chance`` is its Miller-Madow bias, (positions - 1) / (2 n ln 2)
    bits: so much shows where firing and position are independent.

    References
    ----------
    Voita, Ferrando and Nalmpantis 2023, "Neurons in large language models: dead, n-gram, positional".
    """
    if grams not in (1, 2):
        raise InputError(f"grams={grams}; triggers are single tokens (1) or pairs (2)")
    stream = Stream(model)
    if not 0 <= layer < len(stream.parts):
        raise InputError(f"no block {layer}; {model.name} has {len(stream.parts)}")
    written = mlp_output(stream, layer)
    given = as_tokens(model, tokens)
    keys, vocabulary = _keys(given, grams, model.d_vocab or int(given.ids.max()) + 1)
    known, inverse = torch.unique(keys[given.mask], return_inverse=True)
    if 8 * len(known) * len(written) > budget:
        need = 8 * len(known) * len(written) / 1e9
        raise InputError(
            f"counting {len(known)} triggers of {len(written)} neurons would take {need:.2g} GB; budget is "
            f"{budget / 1e9:.2g} GB (give fewer texts, or raise budget=)"
        )
    at = torch.full(keys.shape, -1)
    at[given.mask] = inverse
    by_trigger = torch.zeros(len(known), len(written), dtype=torch.float64)
    by_position = torch.zeros(keys.shape[1], len(written), dtype=torch.float64)
    site, done = f"blocks.{layer}.mlp.hook_post", 0
    for part in given.batches(batch_size):
        fired = (model.capture(part, site)[site] > 0).double().cpu()
        rows = slice(done, done + len(part))
        real = given.mask[rows]
        by_trigger.index_add_(0, at[rows][real], fired[real])
        by_position += (fired * real[..., None]).sum(0)
        done += len(part)
    total = int(given.mask.sum())
    return _census(
        model, by_trigger, by_position, known, given.mask.sum(0).double(), total, most_tokens=most_tokens,
        least_bits=least_bits, effect=written @ unembedding(stream), d_vocab=vocabulary,
        said={"model": model.name, "layer": layer, "grams": grams},
    )  # fmt: skip


def _keys(given: Any, grams: int, d_vocab: int) -> tuple[Tensor, int]:
    """A number for each place's trigger, and the size of the vocabulary."""
    ids = given.ids.cpu()
    if grams == 1:
        return ids, d_vocab
    before = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)  # the first token is its own predecessor
    return before * d_vocab + ids, d_vocab


def _census(  # noqa: PLR0913  (the counts, and what they are judged by)
    model: Any,
    by_trigger: Tensor,
    by_position: Tensor,
    known: Tensor,
    places: Tensor,
    total: int,
    *,
    most_tokens: int,
    least_bits: float,
    effect: Tensor,
    d_vocab: int,
    said: dict[str, Any],
) -> NeuronCensus:
    fires = by_position.sum(0)
    best = by_trigger.topk(min(most_tokens, len(known)), dim=0)
    covered = best.values.cumsum(0) / fires.clamp(min=1)
    detector = (fires > 0) & (covered[-1] >= COVERED)
    enough = (covered < COVERED).sum(0) + 1  # triggers needed
    triggers = tuple(
        tuple(known[best.indices[: int(enough[j]), j]].tolist()) if detector[j] else ()
        for j in range(len(fires))
    )
    effect = effect.cpu()
    effect = (effect - effect.mean(1, keepdim=True)) / effect.std(1, keepdim=True).clamp(min=1e-300)
    promotes = [
        float(effect[j, torch.tensor(one) % d_vocab].mean()) if one else np.nan
        for j, one in enumerate(triggers)
    ]
    information = _information(by_position, places)
    chance = (int((places > 0).sum()) - 1) / (2 * total * np.log(2))
    bits = information.numpy()
    share = (fires / total).numpy()
    return NeuronCensus(
        name="neuron census",
        value=share,
        stderr=np.sqrt(share * (1 - share) / total),
        n=total,
        convention=(
            f"share of tokens with a positive activation; detector: {most_tokens} triggers cover {COVERED:.0%} of "
            f"firings; positional: at least {least_bits} bits; errors as if tokens were independent"
        ),
        chance=None,
        axes=("neuron",),
        ticks=(tuple(map(str, range(len(share)))),),
        provenance={**said, "position_chance_bits": chance},
        dead=(fires == 0).numpy(),
        detector=detector.numpy(),
        triggers=triggers,
        promotes=np.array(promotes),
        information=bits,
        positional=bits >= max(least_bits, 4 * chance),
    )


def _information(by_position: Tensor, places: Tensor) -> Tensor:
    """Mutual information [neuron] in bits of firing (yes or no) and position, from counts."""
    total = places.sum()
    fired = by_position.sum(0)

    def part(joint: Tensor, margin: Tensor) -> Tensor:
        expected = places[:, None] * margin / total
        ratio = torch.where(joint > 0, joint / expected.clamp(min=1e-300), 1.0)
        return (joint / total * ratio.log2()).sum(0)

    return part(by_position, fired) + part(places[:, None] - by_position, total - fired)
