"""The geometry station in full: every quantity of the layer profile beside an untrained network, and a lens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.errors import InterpError
from interp.metrics.profiles import QUANTITIES, layer_profile, layer_similarity
from interp.metrics.sequences import ORDERED
from interp.results import Result
from interp.sites import Site
from interp.study.findings import Finding
from interp.study.stations import Plate, Section, Study, Table

__all__ = ["profiled_tokens", "with_profile"]

N_TOKENS = 16_384
"""Tokens of the profile."""
N_LENS = 64
"""Sequences that the lens reads."""
DRAWN = {
    "stable rank": "dimensions",
    "alpha-ReQ": "exponent",
    "mean cosine": "cosine",
    "von Neumann entropy": "nats",
    "prompt entropy": "nats",
    "curvature": "degrees",
}
"""Quantities with a figure of their own, and their units; the others stand in the table."""
Part = tuple[tuple[Plate, ...], tuple[Table, ...], dict[str, Any], tuple[Finding, ...]]


def profiled_tokens(study: Study) -> Any:
    """The sequences that the profile runs over."""
    longest = max(1, int(study.tokens.ids.shape[1]))
    return study.tokens[: max(32, N_TOKENS // longest)]


def with_profile(section: Section, study: Study, sites: Sequence[Site]) -> Section:
    """The section with the profile, the comparison to an untrained network, and the lens.

    A part that this model does not allow becomes a caveat with its reason.
    """
    tokens = profiled_tokens(study)
    parts: list[tuple[str, Callable[[], Part]]] = [
        ("The layer profile", lambda: _profile(study, tokens, sites)),
        ("The comparison with an untrained network", lambda: _untrained(study, tokens, sites)),
        ("The logit lens", lambda: _lens(study)),
    ]
    for what, make in parts:
        try:
            plates, tables, numbers, findings = make()
        except (InterpError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            section = replace(section, caveats=(*section.caveats, f"{what} was left out: {reason}"))
            continue
        section = replace(
            section,
            plates=(*section.plates, *plates),
            tables=(*section.tables, *tables),
            numbers={**section.numbers, **numbers},
            findings=(*section.findings, *findings),
        )
    return section


def _profile(study: Study, tokens: Any, sites: Sequence[Site]) -> Part:
    names = [str(site) for site in sites]
    # a network that reads whole inputs has no path over positions
    one = study.model.capture(tokens[:1], list(sites))
    whole = tokens.ids.shape[1] == 1 or any(one[site].ndim < 3 for site in sites)
    quantities = [q for q in QUANTITIES if not whole or q not in ORDERED]
    profile = layer_profile(
        study.model,
        tokens,
        names,
        quantities=quantities,
        baseline="random_init",
        batch_size=16,
        seed=study.seed,
    )
    plates = tuple(
        _curve(name, profile[name], unit)
        for name, unit in DRAWN.items()
        if name in profile and _some(profile[name])
    )
    numbers = {
        name: {
            "sites": names, "value": _list(r.value), "stderr": None if r.stderr is None else _list(r.stderr),
            "untrained": _list(r.chance), "n": r.n, "convention": r.convention, "reason": r.reason,
        }
        for name, r in profile.items()
    }  # fmt: skip
    findings = tuple(
        Finding(
            kind="geometry",
            name="",
            site=site,
            measure=f"{name} (profile)",
            value=value,
            n=r.n,
            low=None if half is None or value is None else value - half,
            high=None if half is None or value is None else value + half,
            href=f"#{_anchor(name)}" if name in DRAWN else "#profile",
            shown=False,
        )  # fmt: skip
        for name, r in profile.items()
        for site, value, half in zip(names, _list(r.value), _halves(r), strict=True)
    )
    return plates, (_table(profile, names),), {"profile": numbers}, findings


def _curve(name: str, result: Result, unit: str) -> Plate:
    from interp.plots import Series, lines

    value = np.asarray(result.value, dtype=float)
    half = np.array([np.nan if h is None else h for h in _halves(result)])
    series = [
        Series(name="this model", y=value, low=value - half, high=value + half),
        Series(name="untrained", y=np.asarray(result.chance, dtype=float), baseline=True),
    ]
    return Plate(
        title=name[:1].upper() + name[1:],
        anchor=_anchor(name),
        half=True,
        figure=lines(list(result.ticks[0]), series, x_title="site", y_title=unit),
        caption=(
            f"{result.convention}. n = {result.n}. Band: 95% interval; grey: the same network with fresh random "
            "weights on the same tokens."
        ),
    )


def _table(profile: dict[str, Result], names: Sequence[str]) -> Table:
    rows = []
    for name, result in profile.items():
        for site, value, half, bare in zip(
            names, _list(result.value), _halves(result), _list(result.chance), strict=True
        ):
            rows.append((name, site, _round(value), _round(half), _round(bare)))
    return Table(
        title="Layer profile",
        anchor="profile",
        columns=("quantity", "site", "value", "± (95%)", "untrained"),
        rows=tuple(rows),
        caption="Every quantity of the layer profile, beside the same network with fresh random weights.",
    )


def _untrained(study: Study, tokens: Any, sites: Sequence[Site]) -> Part:
    from interp.plots import heatmap

    found = layer_similarity(
        study.model, tokens, [str(s) for s in sites], baseline="random_init", batch_size=16, seed=study.seed
    )
    plate = Plate(
        title="Likeness to the untrained network",
        anchor="cka-untrained",
        figure=heatmap(
            np.asarray(found.value),
            rows=found.ticks[0],
            columns=found.ticks[1],
            x_title="untrained network",
            y_title="this model",
            unit="CKA",
            span=(0.0, 1.0),
            spread=None if found.stderr is None else np.asarray(found.stderr),
        ),
        caption=(
            f"Debiased linear CKA over {found.n} tokens with the same network with fresh random weights: how much of "
            "each layer's arrangement comes with the architecture and the tokens."
        ),
    )
    numbers = {
        "rows": list(found.ticks[0]),
        "columns": list(found.ticks[1]),
        "value": [_list(r) for r in np.asarray(found.value)],
    }
    return (plate,), (), {"cka_untrained": {**numbers, "n": found.n, "convention": found.convention}}, ()


def _lens(study: Study) -> Part:
    from interp.lenses import logit_lens
    from interp.plots import Series, lines

    read = logit_lens(study.model, study.tokens[:N_LENS])
    value = np.asarray(read.value, dtype=float)
    half = np.array([np.nan if h is None else h for h in _halves(read)])
    names = list(read.ticks[0])
    figure = lines(
        names,
        [Series(name="KL", y=value, low=value - half, high=value + half)],
        x_title="site",
        y_title="nats",
    )
    plates = (
        Plate(
            title="How far each layer's stream reads from the model's answer",
            anchor="lens",
            figure=figure,
            caption=(
                f"Logit lens: {read.convention}; {read.n} tokens. Its top token is the model's own at "
                + ", ".join(
                    f"{share:.0%} ({site})" for site, share in zip(names, read.agreement, strict=True)
                )
                + "."
            ),
        ),
        Plate(
            title="What each layer would say of the first sequence",
            figure=_first_words(read),
            caption="Each cell: the lens's top token there; colour: the entropy of its distribution.",
        ),
    )
    findings = tuple(
        Finding(
            kind="geometry",
            name="logit lens",
            site=site,
            measure="nats from the model's answer",
            value=v,
            n=read.n,
            low=None if h is None or v is None else v - h,
            high=None if h is None or v is None else v + h,
            href="#lens",
        )  # fmt: skip
        for site, v, h in zip(names, _list(value), _halves(read), strict=True)
    )
    numbers = {"sites": names, "kl_nats": _list(value), "agreement": _list(read.agreement), "n": read.n}
    return plates, (), {"logit_lens": {**numbers, "convention": read.convention}}, findings


def _first_words(read: Any, n_words: int = 20) -> Any:
    """The lens's grid over the first words of the first sequence: more would not be legible."""
    from interp.plots import lens_grid

    return lens_grid(
        read.entropy[:, 0, :n_words],
        said=[site[0][:n_words] for site in read.said],
        words=read.words[0][:n_words],
        sites=read.ticks[0],
        unit="entropy (nats)",
    )


def _anchor(name: str) -> str:
    return "profile-" + "".join(c if c.isalnum() else "-" for c in name.lower())


def _some(result: Result) -> bool:
    return bool(np.isfinite(np.asarray(result.value, dtype=float)).any())


def _list(values: Any) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _halves(result: Result) -> list[float | None]:
    """Half widths of the 95% intervals."""
    if result.stderr is None:
        return [None] * len(np.asarray(result.value))
    return _list(1.96 * np.asarray(result.stderr, dtype=float))


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
