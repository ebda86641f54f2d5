"""Similarity: are two representations of the same samples the same up to rotation and scale?

Centred kernel alignment: linear, exact from rows or from a Moments, or from minibatch blocks (some 20 times
cheaper); one pair, or all pairs of two sets of sites at once. Read next: ``pairs.py``, ``hsic.py`` (the estimates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from interp.errors import InputError
from interp.metrics.declared import NO_PARTS, NOT_ASKED, outcome
from interp.metrics.pairs import moments_table, rows_table
from interp.metrics.rows import Data, Groups, Rows
from interp.moments.accumulator import SiteMoments, need_pair
from interp.moments.moments import Moments
from interp.results import Result
from interp.sites import Site

__all__ = ["cka", "cka_matrix"]

_BIAS = "biased CKA of unrelated data is far above 0 (see chance)"

Method = Literal["exact", "blocks"]


def cka(
    x: Data,
    y: Data,
    *,
    unbiased: bool = True,
    method: Method = "exact",
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """Linear centred kernel alignment of two representations of the same samples.

    Assumes row i of ``x`` and row i of ``y`` stand for the same sample. Invariant to rotation, isotropic scale and
    shift of either side; not to a general linear map.

    Parameters
    ----------
    x, y
        [sample, d_x] and [sample, d_y], any float type, at least 4 samples; or two sites of one Moments.
    unbiased
        True: ratio of debiased HSIC estimates, near 0 for unrelated data at any n, and possibly negative.
        False: the biased form, in [0, 1], which for unrelated isotropic data is about d / (n + d), not 0.
    method
        ``"exact"``, or ``"blocks"``: the ratio of HSIC_1 averaged over blocks of 128 rows (Nguyen et al. 2021),
        an estimate of the same quantity.
    groups
        [sample] which text (or other unit) each row came from: the standard error then leaves out whole groups.
    n_blocks
        Jackknife blocks; contiguous rows where no ``groups`` are given. 0: no standard error.

    Returns
    -------
    Result
        ``.value``, ``.stderr``, ``.chance`` (0 debiased; the figure of unrelated isotropic data biased). Of a Moments
        the error comes from its parts if it has any, else from its blocks.
        For constant data ``.value`` is nan and ``.reason`` says so.

    Raises
    ------
    InputError
        Rows differ in number, are fewer than 4, or hold NaN; the Moments lack the cross block.

    Notes
    -----
    Rows of at most 32 bits are multiplied in float32 (once centred and scaled) and summed in float64. Cost: the
    smaller of n d_x d_y and n^2 (d_x + d_y) products; no forward pass.

    References
    ----------
    Kornblith et al. 2019, eq. 4; Song et al. 2012, eq. 5; Nguyen et al. 2021.
    """
    if isinstance(x, SiteMoments) and isinstance(y, SiteMoments):
        if method == "exact":
            need_pair(x, y)
        elif x.moments is not y.moments:
            raise InputError("the two sites come from different Moments: accumulate them together")
        table = moments_table(x.moments, [x.site], [y.site], unbiased, method)
    elif isinstance(x, SiteMoments) or isinstance(y, SiteMoments):
        raise InputError("one side is moments and the other rows: give rows, or two sites of one Moments")
    else:
        if len(x) != len(y):
            raise InputError(
                f"x has {len(x)} samples and y has {len(y)}; row i of both must stand for the same sample"
            )
        table = rows_table({"x": x}, {"y": y}, unbiased, method, groups, n_blocks)
    value, stderr, chance, n, widths, why, convention = table
    return outcome(
        "linear CKA",
        float(value[0, 0]),
        n=n,
        d=widths,
        stderr=None if stderr is None else float(stderr[0, 0]),
        chance=float(chance[0, 0]),
        convention=convention,
        reason=next(iter(why.values()), None),
        no_stderr=NO_PARTS if isinstance(x, SiteMoments) else NOT_ASKED,
        bias="" if unbiased else _BIAS,
        provenance={"unbiased": unbiased, "method": method},
    )


def cka_matrix(
    acts_by_site: Mapping[str, Rows] | Mapping[Site, Rows] | Moments,
    others: Mapping[str, Rows] | Mapping[Site, Rows] | None = None,
    *,
    unbiased: bool = True,
    method: Method = "exact",
    groups: Groups = None,
    n_blocks: int = 16,
) -> Result:
    """:func:`cka` of every pair of sites: a matrix [site, site] with its standard errors.

    Parameters
    ----------
    acts_by_site
        Site -> rows [sample, d]; the same samples at every site, widths may differ. Or a Moments (with
        ``cross=True`` for ``method="exact"``).
    others
        The sites of another model on the same samples: the matrix is then model x model.
    unbiased, method, groups, n_blocks
        As for :func:`cka`.

    Raises
    ------
    InputError
        Fewer than two sites, or sites with different numbers of rows.
    """
    if isinstance(acts_by_site, Moments):
        names = (acts_by_site.sites, acts_by_site.sites)
        table = moments_table(acts_by_site, *names, unbiased, method)
    else:
        first = {str(site): x for site, x in acts_by_site.items()}
        second = first if others is None else {str(site): x for site, x in others.items()}
        names = (tuple(first), tuple(second))
        if len(first) * len(second) < 2:
            raise InputError(f"a similarity matrix needs at least two sites; got {list(first)}")
        table = rows_table(first, second, unbiased, method, groups, n_blocks)
    value, stderr, chance, n, widths, why, convention = table
    return outcome(
        "linear CKA",
        value,
        n=n,
        d=widths,
        stderr=stderr,
        chance=0.0 if unbiased else chance,
        axes=("site", "site"),
        ticks=names,
        convention=convention,
        reason="; ".join(sorted({f"{a} with {b}: {reason}" for (a, b), reason in why.items()})) or None,
        bias="" if unbiased else _BIAS,
        no_stderr=NO_PARTS if isinstance(acts_by_site, Moments) else NOT_ASKED,
        provenance={"unbiased": unbiased, "method": method},
    )
