"""`interp analyze`: the main job from the command line, and its estimate with --dry-run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import (
    NETWORKS,
    AsJson,
    Backend,
    Device,
    DryRun,
    Preset,
    Resume,
    Seed,
    Texts,
    Window,
    choices,
)
from interp.commands.saying import say
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.study.analysis import Analysis
    from interp.study.planning import Plan


_MODEL = "A folder, a hub name, an embedded network such as mini or group:C59, or a function in a file (net.py:make)."
_TOKENS = "Tokens to read, at most."


def register(app: typer.Typer) -> None:
    """Add `analyze` to the command line."""
    enroll(app, "analyze", analyze, configured=True)


def analyze(  # noqa: PLR0913 - a command's options
    call: Call,
    model: Annotated[str, typer.Argument(help=_MODEL, autocompletion=choices(*NETWORKS))] = "mini",
    texts: Texts = None,
    out: Annotated[Path, typer.Option(help="The folder to write the report into.")] = Path("report"),
    preset: Preset = "standard",
    seed: Seed = 0,
    device: Device = "auto",
    backend: Backend = "auto",
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help=_TOKENS, show_default="32768; quick: 6554")
    ] = None,
    window: Window = None,
    stations: Annotated[
        str | None, typer.Option(help="Which to visit, with commas.", show_default="all")
    ] = None,
    resume: Resume = True,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Study a model from end to end and write one report (HTML and JSON).

    Captures the residual stream of every layer, compares the layers, probes them, trains a small sparse autoencoder,
    and maps the effect of every head; with --preset deep each of these takes its full form. Before each step it says
    on standard error about how long it will take. Prints the path of the report. Exit code 1 if a station failed, 130
    after Ctrl-C.

    Examples:

        interp analyze --out report

        interp analyze mini --preset deep --out deep

        interp analyze net.py:make --out net

        interp analyze path/to/model --texts stories.jsonl --out report --dry-run
    """
    names = None if stations is None else [name.strip() for name in stations.split(",") if name.strip()]
    if names == []:
        raise InputError("--stations names no station")
    from interp import load
    from interp.cli import raise_if_interrupted
    from interp.study.analysis import run
    from interp.study.job import prepare
    from interp.study.sourcefile import is_source, made_by

    require_file(texts)
    require_place(out)  # before the minutes of work, not after
    _check_device(device)
    if is_source(model):
        loaded = made_by(model, backend=backend, device=device)
    else:
        loaded = load(model, backend=backend, device=device)
    options = {"seed": seed, "stations": names, "max_tokens": max_tokens, "seq_len": window, "preset": preset}
    job = prepare(loaded, texts=texts, **options)
    if dry_run:
        from interp.study.planning import plan

        _say_plan(plan(job, out), as_json=as_json)
        return
    raise_if_interrupted()
    call.keep(out)
    result = run(job, out, resume=resume, command=call.line)
    _say_result(result, as_json=as_json)
    if result.interrupted:
        raise typer.Exit(130)
    if result.failed:
        raise typer.Exit(1)


def _check_device(device: str) -> None:
    import torch

    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no such device"])[0]
        raise InputError(f"device {device!r} cannot be used here: {reason}") from error


def _say_result(result: Analysis, *, as_json: bool) -> None:
    if not as_json:
        say(str(result.html))
        return
    import json

    shown = ("name", "status", "reason", "summary", "seconds")
    record: dict[str, Any] = {
        "html": str(result.html),
        "json": str(result.json),
        "interrupted": result.interrupted,
    }
    record["sections"] = [{key: section[key] for key in shown} for section in result.sections]
    say(json.dumps(record, indent=2))


def _say_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        import json
        from dataclasses import asdict

        total = {"seconds": plan.seconds, "memory_bytes": plan.memory_bytes, "disk_bytes": plan.disk_bytes}
        say(json.dumps({**asdict(plan), **total}, indent=2))
        return
    say(f"{plan.model} on {plan.source}: {plan.n_sequences} sequences, {plan.n_tokens} tokens")
    say(f"preset {plan.preset}")
    for note in plan.notes:
        say(f"note: {note}")
    say(f"{'step':<32}{'passes':>10}{'time':>10}{'memory':>10}{'disk':>10}")
    for step in plan.steps:
        if step.reason:
            say(f"{step.title[:31]:<32}does not run: {step.reason}")
            continue
        costs = (
            f"{step.forward_passes:.0f}",
            _time(step.seconds),
            _bytes(step.memory_bytes),
            _bytes(step.disk_bytes),
        )
        say(f"{step.title[:31]:<32}" + "".join(f"{cost:>10}" for cost in costs))
    costs = ("", _time(plan.seconds), _bytes(plan.memory_bytes), _bytes(plan.disk_bytes))
    say(f"{'in all, with the weights':<32}" + "".join(f"{cost:>10}" for cost in costs))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(n: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n / 1e3:.0f} kB" if n else "-"
