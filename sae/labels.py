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
from sae.codes import Codes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IGNORE", "LabelTable", "auroc_table", "label_latents"]

IGNORE = -100
"""The label of a token that has none."""


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
    """[latent] the concept it is the best sign of, chosen on the first half; -1 for a latent that never fires there."""
    concept_auroc: np.ndarray
    """[latent] its AUROC on the held-out texts, 0.5 where it does not fire."""

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

    def of_latents(self, *, least: float = 0.75) -> dict[int, tuple[str, float]]:
        """Latent -> (its concept, held-out AUROC), for those that reach ``least``."""
        good = np.flatnonzero((self.concept >= 0) & (self.concept_auroc >= least))
        return {int(j): (self.concepts[self.concept[j]], float(self.concept_auroc[j])) for j in good}


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
    half = _half(codes, seed)
    found: list[tuple[str, dict[str, np.ndarray]]] = []
    for name, given in labels.items():
        values = codes.of_texts(given)
        present = [int(v) for v in np.unique(values[values != IGNORE])]
        counts = [[int((values[half == side] == v).sum()) for side in (0, 1)] for v in present]
        kept = [v for v, n in zip(present, counts, strict=True) if min(n) >= least]
        if not kept:
            continue
        use = np.ones(codes.n, dtype=bool) if among == "all" else values != IGNORE
        pair = [auroc_table(codes, values, kept, rows=use & (half == side)) for side in (0, 1)]
        title = (names or {}).get(name)
        for i, value in enumerate(kept):
            shown = str(value) if title is None or not 0 <= value < len(title) else title[value]
            concept = {k: v[i] for k, v in pair[1].items()} | {"choice": pair[0]["auroc"][i]}
            found.append((f"{name} = {shown}", concept))
    if not found:
        raise InputError(
            f"no value of {', '.join(labels) or 'no label'} has {least} tokens in both halves of {codes.n}"
        )
    return _table(found, codes, half, among)


def _half(codes: Codes, seed: int) -> np.ndarray:
    """[row] 0 or 1 by text; bare rows alternate in blocks of 64."""
    text = codes.where[:, 0] if len(codes.where) else np.arange(codes.n) // 64
    n = int(text.max()) + 1
    if n < 2:
        raise InputError("one text cannot be split: give at least two")
    side = np.zeros(n, dtype=int)
    side[np.random.default_rng(seed).permutation(n)[n // 2 :]] = 1
    return side[text]


def auroc_table(
    codes: Codes, values: np.ndarray, kept: Sequence[int], *, rows: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """AUROC, precision and recall of every latent for ``values == v``, for each v of ``kept``.

    Parameters
    ----------
    values
        [row] integers.
    rows
        [row] which to use; all by default.

    Returns
    -------
    dict
        ``auroc``, ``precision``, ``recall`` [value, latent]; ``positives`` and ``tokens`` (all used) [value].

    Notes
    -----
    With r the mid-rank of each code among all n rows (those without a code share one), and P the positives,
    AUROC = (sum of r over positives - P (P + 1) / 2) / (P (n - P)).
    """
    use = np.ones(codes.n, dtype=bool) if rows is None else rows
    place = np.full(codes.n, -1)  # which of the kept values each row has
    for i, v in enumerate(kept):
        place[use & (values == v)] = i
    n, n_kept = int(use.sum()), len(kept)
    positives = np.bincount(place[place >= 0], minlength=n_kept)
    latent = np.repeat(np.arange(codes.d_sae), codes.counts)
    inside = use[codes.rows]
    latent, row, value = latent[inside], codes.rows[inside], codes.values[inside]
    rank, idle = _ranks(latent, value, n, codes.d_sae)
    on = place[row] >= 0
    key = place[row][on] * codes.d_sae + latent[on]
    shape = (n_kept, codes.d_sae)

    def summed(weight: np.ndarray | None) -> np.ndarray:
        return np.bincount(key, weights=weight, minlength=n_kept * codes.d_sae).reshape(shape)

    hits = summed(None)
    total = summed((rank - idle[latent])[on]) + idle * positives[:, None]
    rest = np.maximum(positives * (n - positives), 1)[:, None]
    auroc = (total - (positives * (positives + 1) / 2)[:, None]) / rest
    auroc[(positives == 0) | (positives == n)] = 0.5
    fired = np.bincount(latent, minlength=codes.d_sae)
    return {
        "auroc": auroc.astype(np.float32),
        "precision": (hits / np.maximum(fired, 1)).astype(np.float32),
        "recall": (hits / np.maximum(positives, 1)[:, None]).astype(np.float32),
        "positives": positives,
        "tokens": np.full(n_kept, n),
    }


def _ranks(latent: np.ndarray, value: np.ndarray, n: int, d_sae: int) -> tuple[np.ndarray, np.ndarray]:
    """Mid-rank of every code among the n rows of its latent, and of the rows on which the latent does not fire."""
    counts = np.bincount(latent, minlength=d_sae)
    negative = np.bincount(latent[value < 0], minlength=d_sae)
    zeros = n - counts
    order = np.lexsort((value, latent))
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    # position within the latent, ties at their mean: the change points of (latent, value) begin the tied groups
    sorted_latent, sorted_value = latent[order], value[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(sorted_latent) != 0) | (np.diff(sorted_value) != 0)
    group = np.cumsum(new) - 1
    size = np.bincount(group)
    first = np.flatnonzero(new)
    middle = first + (size - 1) / 2 if len(first) else first.astype(float)
    within = middle[group] - starts[sorted_latent] + 1 if len(order) else np.zeros(0)
    rank = np.empty(len(order))
    rank[order] = within
    rank += np.where(value > 0, zeros[latent], 0)
    return rank, negative + (zeros + 1) / 2


def _table(found: list[tuple[str, dict[str, Any]]], codes: Codes, half: np.ndarray, among: str) -> LabelTable:
    names = tuple(name for name, _ in found)
    stack = {key: np.stack([concept[key] for _, concept in found]) for key in found[0][1]}
    latent = stack["choice"].argmax(1)
    pick = np.arange(len(names)), latent
    positives = stack["positives"]
    value = stack["auroc"][pick].astype(float)
    fires = np.bincount(
        np.repeat(np.arange(codes.d_sae), codes.counts)[half[codes.rows] == 0], minlength=codes.d_sae
    )
    concept = np.where(fires > 0, stack["choice"].argmax(0), -1)
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
        concept_auroc=np.where(concept >= 0, stack["auroc"][np.maximum(concept, 0), column], 0.5),
        provenance={"among": among, "rows": codes.n, "d_sae": codes.d_sae},
    )


def _hanley(auroc: np.ndarray, positives: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Standard error of an AUROC over independent tokens (Hanley and McNeil 1982, eq. 1)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    negatives = n - positives
    spread = auroc * (1 - auroc) + (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    return np.sqrt(np.maximum(spread, 0) / (positives * negatives))
