"""`interp circuit report` and `interp circuit diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.estimating import say_cost
from circuits.options import (
    Check,
    Grouping,
    Least,
    Method,
    Pairs,
    Split,
    Steps,
    Task,
    question,
    require_pairs,
)
from interp.commands.invocation import Call, require_file, require_place
from interp.commands.options import AsJson, Backend, Device, DryRun, ModelOption, Seed
from interp.commands.saying import say

__all__ = ["CircuitVerifier", "differ", "tell"]

LISTED = 20


def tell(  # noqa: PLR0913  (one option each)
    call: Call,
    task: Task,
    model: ModelOption = "mini",
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("circuit-report"),
    graph: Annotated[
        Path | None, typer.Option(help="A graph.safetensors that `circuit find` wrote for the same prompts.")
    ] = None,
    method: Method = "eap-ig",
    steps: Steps = 5,
    n: Pairs = 64,
    split: Split = "heldout",
    least: Least = 0.9,
    check: Check = 50,
    gqa: Grouping = "ungrouped",
    seed: Seed = 0,
    backend: Backend = "auto",
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Find a circuit, measure it, and tell it: one page that opens anywhere, and the same as files.

    Writes report.html, report.json (`interp verify` checks it), report.md, report.edges.csv, report.graph.safetensors.

    Examples:

        interp circuit report ioi --out ioi-report

        interp circuit report own --model group:C59 --out c59-report
    """
    import circuits

    require_pairs(task)
    require_file(graph, what="graph")
    require_place(out)
    loaded, asked = question(task, model, device=device, backend=backend, n=n, split=split, seed=seed)
    if dry_run:
        scored = None if graph is None else "known"
        say_cost(loaded, asked, method=scored or method, steps=steps, gqa=gqa, check=check, as_json=as_json)
        return
    call.keep(out)
    scored = (
        circuits.Graph.load(graph)
        if graph is not None
        else circuits.attribute(loaded, asked, method=method, steps=steps, gqa=gqa)  # type: ignore[arg-type]
    )
    made = circuits.report(
        loaded, asked, scored, out=out / "report.html", least=least, check=check, seed=seed,
        command=call.line,
    )  # fmt: skip
    if as_json:
        say(json.dumps({"html": str(made.html), "json": str(made.json), "title": made.record["title"]}))
    else:
        say(str(made.html))


def differ(
    first: Annotated[Path, typer.Argument(help="A report.json, or a graph.safetensors.")],
    second: Annotated[Path, typer.Argument(help="Another one, of a network of the same shape.")],
    as_json: AsJson = False,
) -> None:
    """Compare two circuits: edges lost and gained, and how far their scores agree.

    Example:

        interp circuit diff a/report.json b/report.json
    """
    from circuits.telling.comparing import diff

    found = diff(first, second)
    if as_json:
        keys = ("value", "chance", "n", "correlation", "rank", "gained", "lost", "common")
        record: dict[str, Any] = {key: getattr(found, key) for key in keys}
        record |= {key: getattr(found, key).tolist() for key in ("sizes", "overlap", "by_chance")}
        say(json.dumps(record, indent=2))
        return
    say(
        f"{len(found.common)} edges in both, {len(found.lost)} only in the first, {len(found.gained)} only in the "
        f"second: overlap {found.value:.2f} (random circuits: {found.chance:.3f})"
    )
    if found.correlation is not None:
        say(f"scores of all {found.scores.shape[1]} edges: correlation {found.correlation:.3f}")
    for sign, names in (("-", found.lost), ("+", found.gained)):
        for name in names[:LISTED]:
            say(f"{sign} {name}")
        if len(names) > LISTED:
            say(f"{sign} and {len(names) - LISTED} more")


class CircuitVerifier:
    """What `interp verify` asks for a circuit report."""

    schema = "interp-circuit-report"

    @staticmethod
    def verify(path: Path, *, model: str | None = None) -> tuple[bool, str]:
        """Whether the report is verified, and what to say."""
        from circuits.telling.checking import verify

        found = verify(path, model=model)
        return found.ok, str(found)
