"""The geometry station: how alike the layers are, and how many dimensions each of them uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from interp.metrics.profile_section import profiled_tokens, with_profile
from interp.metrics.similarity import cka, cka_matrix
from interp.metrics.spectral import entropy_rank, participation
from interp.metrics.spectrum import spectrum_of
from interp.results import Result
from interp.sites import Site
from interp.study.findings import Finding
from interp.study.sampling import Rows, draw, layer_sites, residual_sites
from interp.study.stations import Estimate, Plate, Section, Study, Table

__all__ = ["STATION", "GeometryStation"]

N_ROWS = 4096
LEAST_ROWS = 1024
LEAST = 32
"""Rows below which no interval is worth drawing."""


@dataclass(frozen=True, slots=True)
class GeometryStation:
    """CKA between all layers, and the rank of each, over the same tokens."""

    name: str = "geometry"
    title: str = "Geometry of the layers"
    order: int = 10

    def applies(self, study: Study) -> str | None:
        """It needs two sites and a few dozen tokens."""
        sites = residual_sites(layer_sites(study))
        if len(sites) < 2:
            return f"comparing layers needs at least two sites; this model offers {len(sites)}"
        n = int(study.tokens.mask.sum())
        return (
            None
            if n >= LEAST
            else f"{n} tokens are too few for a similarity or a rank; at least {LEAST} are needed"
        )

    def estimate(self, study: Study) -> Estimate:
        """Products of n x d x d for every pair of sites, and a few eigenvalue problems a site."""
        n_sites = len(residual_sites(layer_sites(study)))
        d = study.model.d_model or 256
        n = min(study.effort.of(N_ROWS, least=LEAST_ROWS), int(study.tokens.mask.sum()))
        flops = n_sites**2 * n * d**2 + 30 * 11 * n_sites * d**3
        passes, seconds = 0.0, 0.5 + flops / 1e10
        if study.store is None:
            passes += len(study.tokens)
        if study.effort.full:
            whole = profiled_tokens(study)
            passes += 4 * len(whole)
            # parts of the moments: products of all tokens, and as many eigenvalue problems as the ranks have
            seconds += 1.5 + 2 * n_sites * (int(whole.mask.sum()) * d**2 + 60 * d**3) / 1e10
        return Estimate(
            forward_passes=passes, seconds=seconds, memory_bytes=8 * n_sites * n * d + 20 * 8 * d**2
        )

    def run(self, study: Study) -> Section:
        """Draw rows, compare the sites, measure their spectra."""
        sites = residual_sites(layer_sites(study))
        rows = draw(study, sites, n_rows=study.effort.of(N_ROWS, least=LEAST_ROWS), seed=study.seed)
        sites = [site for site in sites if rows.acts[site].shape[1] > 1]
        groups = rows.doc if len(rows.doc.unique()) > 1 else None
        similarity = cka_matrix({site: rows.acts[site] for site in sites}, groups=groups)
        unrelated = _shuffled_cka(rows, sites, study.seed)
        ranks = _ranks(rows, sites, groups)
        scrambled = _ranks(_scrambled(rows, study.seed), sites, groups)["effective rank"]
        section = Section(
            name=self.name,
            title=self.title,
            summary=_summary(similarity, ranks["effective rank"]),
            plates=_plates(similarity, unrelated, ranks, scrambled),
            tables=(_table(similarity.ticks[0], ranks, scrambled),),
            numbers=_numbers(similarity, unrelated, ranks, scrambled),
            caveats=_caveats(rows, ranks),
            findings=_findings(similarity, ranks),
        )
        return with_profile(section, study, sites) if study.effort.full else section


STATION = GeometryStation()


def _shuffled_cka(rows: Rows, sites: Sequence[Site], seed: int) -> list[float]:
    """Debiased CKA of neighbouring sites with the rows of one permuted: what unrelated data give."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + 1))
    return [
        float(cka(rows.acts[a], rows.acts[b][order]).value) for a, b in zip(sites, sites[1:], strict=False)
    ]


def _scrambled(rows: Rows, seed: int) -> Rows:
    """Every coordinate permuted over the rows by itself: the same marginals, no relation between coordinates."""
    generator = torch.Generator().manual_seed(seed + 2)
    acts = {
        site: x.gather(0, torch.rand(x.shape, generator=generator).argsort(0))
        for site, x in rows.acts.items()
    }
    return Rows(acts=acts, ids=rows.ids, doc=rows.doc, pos=rows.pos)


def _ranks(rows: Rows, sites: Sequence[Site], groups: torch.Tensor | None) -> dict[str, list[Result]]:
    out: dict[str, list[Result]] = {"effective rank": [], "RankMe": [], "participation ratio": []}
    for site in sites:
        spectrum = spectrum_of(rows.acts[site], center=True, groups=groups, n_blocks=10)
        out["effective rank"].append(entropy_rank(spectrum, on="eigen"))
        out["RankMe"].append(entropy_rank(spectrum, on="singular"))
        out["participation ratio"].append(participation(spectrum))
    return out


def _values(results: Sequence[Result]) -> np.ndarray:
    return np.array([float(r.value) for r in results])


def _isotropic(result: Result) -> float:
    return float(np.asarray(result.chance, dtype=float))


def _summary(similarity: Result, effective: Sequence[Result]) -> str:
    names, value = similarity.ticks[0], np.asarray(similarity.value)
    beside = np.diagonal(value, 1)
    low = np.unravel_index(np.nanargmin(np.where(np.isnan(value), np.inf, value)), value.shape)
    stderr = np.asarray(similarity.stderr)[low]
    ranks = _values(effective)
    ends = [
        f"{ranks[i]:.1f} of {effective[i].provenance['d']} at {names[i]} (isotropic rows: "
        f"{_isotropic(effective[i]):.1f})"
        for i in (int(np.nanargmin(ranks)), int(np.nanargmax(ranks)))
    ]
    return (
        f"The likeness (debiased linear CKA) of neighbouring sites runs from {_two(np.nanmin(beside))} to "
        f"{_two(np.nanmax(beside))}; the least alike "
        f"pair is {names[low[0]]} and {names[low[1]]}, with {_two(value[low])} ± {1.96 * stderr:.1g}; the "
        f"effective rank runs from {ends[0]} to {ends[1]}."
    )


def _two(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}"  # + 0.0: no "-0.00"


def _plates(
    similarity: Result, unrelated: Sequence[float], ranks: dict[str, list[Result]], scrambled: list[Result]
) -> tuple[Plate, ...]:
    from interp.plots import Series, heatmap, lines

    names = similarity.ticks[0]
    matrix = heatmap(
        np.asarray(similarity.value),
        rows=names,
        columns=names,
        unit="CKA",
        span=(0.0, 1.0),
        spread=np.asarray(similarity.stderr),
    )
    series = [_series(name, ranks[name]) for name in ("effective rank", "participation ratio")]
    series.append(Series(name="effective rank, coordinates shuffled", y=_values(scrambled), baseline=True))
    series.append(
        Series(
            name="effective rank, isotropic rows",
            y=np.array([_isotropic(r) for r in ranks["effective rank"]]),
            baseline=True,
        )
    )
    profile = lines(list(names), series, x_title="site", y_title="dimensions")
    n = similarity.n
    return (
        Plate(
            title="Similarity of all pairs of sites",
            anchor="cka",
            figure=matrix,
            caption=(
                f"Debiased linear CKA over {n} tokens; hover for the standard error (jackknife over groups of "
                "texts). 1: the same up to "
                "rotation and scale. Unrelated data read 0; with shuffled rows neighbouring sites read at "
                f"most {max(map(abs, unrelated)):.1g} in size."
            ),
        ),
        Plate(
            title="Dimensions in use",
            anchor="ranks",
            figure=profile,
            caption=(
                f"Covariance spectrum of {n} centred tokens a site; band: 95% interval (jackknife over groups "
                "of texts). Grey: the same rows with "
                "every coordinate shuffled by itself, and isotropic Gaussian rows of the same number and width."
            ),
        ),
    )


def _findings(similarity: Result, ranks: dict[str, list[Result]]) -> tuple[Finding, ...]:
    """The rank of every site, and its likeness to the one before."""
    names, value, stderr = similarity.ticks[0], np.asarray(similarity.value), np.asarray(similarity.stderr)
    found = [
        Finding(
            kind="geometry",
            name="",
            site=site,
            measure=name,
            value=_json(r.value),
            n=r.n,
            href="#ranks",
            low=None if r.interval is None else _json(r.interval[0]),
            high=None if r.interval is None else _json(r.interval[1]),
            shown=name == "effective rank",
        )  # fmt: skip
        for name, results in ranks.items()
        for site, r in zip(names, results, strict=True)
    ]
    for i in range(1, len(names)):
        at, half = value[i - 1, i], 1.96 * stderr[i - 1, i]
        found.append(
            Finding(
                kind="geometry",
                name="",
                site=names[i],
                measure="CKA with the site before",
                value=_json(at),
                low=_json(at - half),
                high=_json(at + half),
                n=similarity.n,
                href="#cka",
            )  # fmt: skip
        )
    return tuple(found)


def _series(name: str, results: Sequence[Result]) -> object:
    from interp.plots import Series

    ends = np.array([r.interval if r.interval is not None else (np.nan, np.nan) for r in results])
    return Series(name=name, y=_values(results), low=ends[:, 0], high=ends[:, 1])


def _table(names: Sequence[str], ranks: dict[str, list[Result]], scrambled: Sequence[Result]) -> Table:
    columns = (
        "site",
        "d",
        "n / d",
        "effective rank",
        "± (95%)",
        "RankMe (centred)",
        "participation ratio",
        "shuffled coordinates",
        "isotropic",
    )
    rows = []
    for i, (name, one, rankme, ratio) in enumerate(zip(names, *ranks.values(), strict=True)):
        half = None if one.stderr is None else round(1.96 * float(one.stderr), 3)
        rows.append(
            (
                name,
                one.provenance["d"],
                round(one.provenance["n_over_d"], 2),
                _rounded(one),
                half,
                _rounded(rankme),
                _rounded(ratio),
                _rounded(scrambled[i]),
                round(_isotropic(one), 2),
            )
        )
    return Table(
        title="Rank by site",
        columns=columns,
        rows=tuple(rows),
        caption=(
            "Effective rank: exp entropy of covariance eigenvalues. RankMe: the same of singular values "
            "(published without centring; centred here)."
        ),
    )


def _rounded(result: Result) -> float | str:
    return round(float(result.value), 2) if result.reason is None else result.reason


def _numbers(
    similarity: Result,
    unrelated: Sequence[float],
    ranks: dict[str, list[Result]],
    scrambled: Sequence[Result],
) -> dict[str, object]:
    names = list(similarity.ticks[0])
    profile = {
        name: [
            {
                "site": site,
                "value": _json(r.value),
                "stderr": _json(r.stderr),
                "n": r.n,
                "convention": r.convention,
                "isotropic": _isotropic(r),
                "reason": r.reason,
            }
            for site, r in zip(names, results, strict=True)
        ]
        for name, results in ranks.items()
    }
    return {
        "cka": {
            "sites": names,
            "value": [[_json(v) for v in row] for row in np.asarray(similarity.value)],
            "stderr": [[_json(v) for v in row] for row in np.asarray(similarity.stderr)],
            "n": similarity.n,
            "convention": similarity.convention,
            "chance": 0.0,
            "shuffled_rows": [_json(u) for u in unrelated],
            "reason": similarity.reason,
        },
        "rank": profile,
        "effective_rank_coordinates_shuffled": [_json(r.value) for r in scrambled],
    }


def _json(value: object) -> float | None:
    """A float, or None where there is none (JSON has no nan)."""
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if np.isfinite(number) else None


def _caveats(rows: Rows, ranks: dict[str, list[Result]]) -> tuple[str, ...]:
    short_of = {r.provenance["caveat"] for r in ranks["effective rank"] if r.provenance["caveat"]}
    return (
        "CKA compares the arrangement of these tokens, not what the layers compute: two layers can agree to 1 "
        "and be used differently.",
        "Tokens of one text are not independent: the debiasing assumes independent rows, the intervals "
        "resample whole texts.",
        "Beginning-of-sequence tokens are left out; a few directions of large variance can decide CKA and every rank.",
        *sorted(short_of),
    )
