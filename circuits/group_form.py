"""A group network's part of the circuit station: the reverse-engineered algorithm, before the map of its parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuits.groups.analysis import reverse_engineer
from circuits.groups.page import section_of
from circuits.groups.reading import GroupReading
from interp.study.findings import Finding
from interp.study.stations import Section, Study

__all__ = ["group_of", "with_algorithm"]


def group_of(study: Study) -> str:
    """The group that the network computes in, ``"C59"``; empty for any other network."""
    family, _, name = study.name.partition(":")
    return name if family == "group" else ""


def with_algorithm(section: Section, study: Study) -> Section:
    """The section, led by what :func:`circuits.groups.reverse_engineer` reads off the network."""
    reading = reverse_engineer(study.model, group_of(study), with_cosets=study.effort.full, seed=study.seed)
    told = section_of(reading)
    return replace(
        section,
        summary=f"{told.summary} {section.summary}",
        plates=(*told.plates, *section.plates),
        tables=(*told.tables, *section.tables),
        numbers={"group": told.numbers, **section.numbers},
        caveats=(*told.caveats, *section.caveats),
        findings=(*_findings(reading), *section.findings),
    )


def _findings(reading: GroupReading) -> tuple[Finding, ...]:
    value, chance = np.asarray(reading.value, dtype=float), np.asarray(reading.chance, dtype=float)
    irreps = tuple(
        Finding(
            kind="algorithm", name=name, site="", measure="logit similarity", value=float(value[i]), n=reading.n,
            chance=float(chance[i]), href="#circuit", shown=name in reading.key,
        )
        for i, name in enumerate(reading.irreps) if np.isfinite(value[i])
    )  # fmt: skip
    shares = (
        ("explained", "of the logits' variance in irreps"),
        ("residual", "of it beyond the group's distance"),
    )
    return irreps + tuple(
        Finding(
            kind="algorithm",
            name="",
            site="",
            measure=said,
            value=float(reading.logits[key]),
            n=reading.n,
            href="#circuit",
        )
        for key, said in shares
    )
