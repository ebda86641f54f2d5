"""Labels for latents, from text in which every token is labelled: which latent tells which label, and how well.

A *concept* is one value of one label (``day = Monday``); a latent is a score for it: its code, 0 where it does not
fire. The area under the ROC curve of every latent for every concept comes from sparse ranks in one pass, without the
dense matrix. Which latent is best is chosen on one half of the texts and told on the other, so that the best of a
thousand latents flatters nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.results import Result
from interp.toys.collection import IGNORE
from sae.codes import Codes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IGNORE", "LabelTable", "Ranked", "auroc_table", "half_of", "label_latents"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LabelTable(Result):
    """``value`` [concept]: AUROC, on held-out texts, of the latent that was best on the others."""

    latent: np.ndarray
    """[concept] that latent."""
    precision: np.ndarray
    """[concept] share of its firings that carry the label, held out; 0 if it never fires there."""
    recall: np.ndarray
    """[concept] share of the label's tokens on which it fires, held out."""
    positives: np.ndarray
    """[concept] tokens that carry the label, held out."""
    choice: np.ndarray
    """[concept, latent] AUROC on the texts by which latents were chosen."""
    check: np.ndarray
    """[concept, latent] AUROC on the held-out texts."""
    concept: np.ndarray
    """[latent] the concept with the largest F1 on the first half; -1 for a latent that meets none there. Not by AUROC:
    that of a rare concept is near 1 for any latent that fires on it, whatever else it fires on."""
    concept_auroc: np.ndarray
    """[latent] its AUROC for that concept on the held-out texts; 0.5 without one."""
    concept_precision: np.ndarray
    """[latent] share of its firings that carry it, held out."""
    concept_recall: np.ndarray
    """[latent] share of its tokens on which the latent fires, held out."""

    @property
    def concepts(self) -> tuple[str, ...]:
        """Their names."""
        return self.ticks[0]

    def to_frame(self) -> pd.DataFrame:
        """One row a concept: its best latent with AUROC, precision, recall, best concepts first."""
        import pandas as pd

        frame = pd.DataFrame(
            {
                "concept": self.concepts,
                "latent": self.latent,
                "auroc": self.value,
                "precision": self.precision,
                "recall": self.recall,
                "tokens": self.positives,
            }
        )
        return frame.sort_values("auroc", ascending=False, ignore_index=True)

    def of_latents(self, *, least: float = 0.75, precision: float = 0.5) -> dict[int, tuple[str, float]]:
        """Latent -> (its concept, held-out AUROC), for those that reach ``least`` and fire mostly on it."""
        good = self.concept >= 0
        good &= (self.concept_auroc >= least) & (self.concept_precision >= precision)
        return {
            int(j): (self.concepts[self.concept[j]], float(self.concept_auroc[j]))
            for j in np.flatnonzero(good)
        }


def label_latents(
    codes: Codes,
    labels: Mapping[str, Any],
    *,
    names: Mapping[str, Sequence[str] | None] | None = None,
    among: str = "all",
    least: int = 20,
    seed: int = 0,
) -> LabelTable:
    """The best latent for every concept and the best concept for every latent.

    Parameters
    ----------
    codes
        From :func:`sae.encode`.
    labels
        Name -> integers [text, pos] (or one a row), :data:`IGNORE` where a token has none.
    names
        Name of a label -> names of its values; numbers where it has none.
    among
        ``"all"``: a concept's negatives are all other tokens. ``"labelled"``: only those with another value of the
        same label.
    least
        Concepts with fewer tokens in either half are left out.
    seed
        Of the split of texts into halves.

    Returns
    -------
    LabelTable
        ``.chance`` is 0.5 exactly: latents are chosen on other texts. Cost: O(codes x labels).

    Raises
    ------
    InputError
        Labels of another shape, or no concept frequent enough.
    """
    if among not in ("all", "labelled"):
        raise InputError(f"among={among!r}; it is 'all' or 'labelled'")
    half = half_of(codes, seed)
    halves = [Ranked(codes, half == side) for side in (0, 1)] if among == "all" else []
    found: list[tuple[str, dict[str, np.ndarray]]] = []
    for name, given in labels.items():
        values = codes.of_texts(given)
        present = [int(v) for v in np.unique(values[values != IGNORE])]
        counts = [[int((values[half == side] == v).sum()) for side in (0, 1)] for v in present]
        kept = [v for v, n in zip(present, counts, strict=True) if min(n) >= least]
        if not kept:
            continue
        sides = (
            halves if among == "all" else [Ranked(codes, (values != IGNORE) & (half == s)) for s in (0, 1)]
        )
        pair = [auroc_table(side, values, kept) for side in sides]
        title = (names or {}).get(name)
        for i, value in enumerate(kept):
            shown = str(value) if title is None or not 0 <= value < len(title) else title[value]
            concept = {k: v[i] for k, v in pair[1].items()}
            concept |= {"choice": pair[0]["auroc"][i], "f1": pair[0]["f1"][i]}
            found.append((f"{name} = {shown}", concept))
    if not found:
        raise InputError(
            f"no value of {', '.join(labels) or 'no label'} has {least} tokens in both halves of {codes.n}"
        )
    return _table(found, codes, among)


def half_of(codes: Codes, seed: int) -> np.ndarray:
    """[row] 0 or 1 by text; bare rows alternate in blocks of 64."""
    text = codes.where[:, 0] if len(codes.where) else np.arange(codes.n) // 64
    n = int(text.max()) + 1
    if n < 2:
        raise InputError("one text cannot be split: give at least two")
    side = np.zeros(n, dtype=int)
    side[np.random.default_rng(seed).permutation(n)[n // 2 :]] = 1
    return side[text]


class Ranked:
    """The codes of some rows, each with its mid-rank among those rows of its latent."""

    def __init__(self, codes: Codes, rows: np.ndarray | None = None) -> None:
        self.use = np.ones(codes.n, dtype=bool) if rows is None else rows
        self.n, self.d_sae = int(self.use.sum()), codes.d_sae
        latent = np.repeat(np.arange(codes.d_sae), codes.counts)
        inside = self.use[codes.rows]
        self.latent, self.row, value = latent[inside], codes.rows[inside], codes.values[inside]
        self.fired = np.bincount(self.latent, minlength=codes.d_sae)
        zeros = self.n - self.fired
        negative = np.bincount(self.latent[value < 0], minlength=codes.d_sae)
        self.idle = negative + (zeros + 1) / 2
        """[latent] the rank that all rows share on which it does not fire."""
        self.rank = _places(self.latent, value) + np.where(value > 0, zeros[self.latent], 0)
        """[code]"""


def _places(latent: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Place of every code among those of its latent from 1 on, ties at their middle."""
    order = np.lexsort((value, latent))
    sorted_latent, sorted_value = latent[order], value[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(sorted_latent) != 0) | (np.diff(sorted_value) != 0)
    first = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    middle = first + (np.bincount(group, minlength=len(first)) - 1) / 2
    begin = np.searchsorted(sorted_latent, np.arange(int(latent.max()) + 1 if len(latent) else 0))
    place = np.empty(len(order))
    place[order] = middle[group] - begin[sorted_latent] + 1
    return place


def auroc_table(ranked: Ranked, values: np.ndarray, kept: Sequence[int]) -> dict[str, np.ndarray]:
    """AUROC, precision and recall of every latent for ``values == v``, for each v of ``kept``.

    Parameters
    ----------
    ranked
        Codes of the rows that count.
    values
        [row] integers, for all rows of the codes.

    Returns
    -------
    dict
        ``auroc``, ``precision``, ``recall``, ``f1`` [value, latent]; ``positives`` and ``tokens`` (all used) [value].

    Notes
    -----
    With r the mid-rank of each code among all n rows (those without a code share one), and P the positives,
    AUROC = (sum of r over positives - P (P + 1) / 2) / (P (n - P)).
    """
    n, d_sae, n_kept = ranked.n, ranked.d_sae, len(kept)
    place = np.full(len(values), -1)  # which of the kept values each row has
    for i, v in enumerate(kept):
        place[ranked.use & (values == v)] = i
    positives = np.bincount(place[place >= 0], minlength=n_kept)
    here = place[ranked.row]
    on = here >= 0
    key = here[on] * d_sae + ranked.latent[on]

    def summed(weight: np.ndarray | None) -> np.ndarray:
        return np.bincount(key, weights=weight, minlength=n_kept * d_sae).reshape(n_kept, d_sae)

    hits = summed(None)
    total = summed((ranked.rank - ranked.idle[ranked.latent])[on]) + ranked.idle * positives[:, None]
    rest = np.maximum(positives * (n - positives), 1)[:, None]
    auroc = (total - (positives * (positives + 1) / 2)[:, None]) / rest
    auroc[(positives == 0) | (positives == n)] = 0.5
    both = np.maximum(ranked.fired + positives[:, None], 1)
    return {
        "f1": (2 * hits / both).astype(np.float32),
        "auroc": auroc.astype(np.float32),
        "precision": (hits / np.maximum(ranked.fired, 1)).astype(np.float32),
        "recall": (hits / np.maximum(positives, 1)[:, None]).astype(np.float32),
        "positives": positives,
        "tokens": np.full(n_kept, n),
    }


def _table(found: list[tuple[str, dict[str, Any]]], codes: Codes, among: str) -> LabelTable:
    names = tuple(name for name, _ in found)
    stack = {key: np.stack([concept[key] for _, concept in found]) for key in found[0][1]}
    latent = stack["choice"].argmax(1)
    pick = np.arange(len(names)), latent
    positives = stack["positives"]
    value = stack["auroc"][pick].astype(float)
    best = stack["f1"].argmax(0)
    concept = np.where(stack["f1"].max(0) > 0, best, -1)
    column = np.arange(codes.d_sae)
    return LabelTable(
        name="label AUROC",
        value=value,
        stderr=_hanley(value, positives, stack["tokens"]),
        n=int(stack["tokens"].max()),
        convention=f"latent chosen on half of the texts, AUROC on the other; negatives: {among} tokens",
        chance=0.5,
        axes=("concept",),
        ticks=(names,),
        latent=latent,
        precision=stack["precision"][pick],
        recall=stack["recall"][pick],
        positives=positives,
        choice=stack["choice"],
        check=stack["auroc"],
        concept=concept,
        concept_auroc=np.where(concept >= 0, stack["auroc"][best, column], 0.5),
        concept_precision=np.where(concept >= 0, stack["precision"][best, column], 0.0),
        concept_recall=np.where(concept >= 0, stack["recall"][best, column], 0.0),
        provenance={"among": among, "rows": codes.n, "d_sae": codes.d_sae},
    )


def _hanley(auroc: np.ndarray, positives: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Standard error of an AUROC over independent tokens (Hanley and McNeil 1982, eq. 1)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    negatives = n - positives
    spread = auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    return np.sqrt(np.maximum(spread, 0) / (positives * negatives))
