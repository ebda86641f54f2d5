"""`interp probe`: can a label be read at a model's sites? Your own labels, or those an embedded network knows."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import (
    PROBES,
    AsJson,
    Backend,
    Device,
    DryRun,
    MaxTokens,
    Model,
    Seed,
    Sites,
    choices,
)
from interp.commands.saying import say

logger = logging.getLogger("interp")


def register(app: typer.Typer) -> None:
    """Add `probe` to the command line."""
    enroll(app, "probe", probe, configured=True)


def probe(  # noqa: PLR0913 - a command's options
    call: Call,
    model: Model,
    out: Annotated[Path, typer.Option(help="A folder for the table, the figures and the results.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help=".csv or .jsonl: text, label, and token or start and end.",
            show_default="an embedded network's own labels",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Which of an embedded network's labels; may be repeated.")
    ] = None,
    sites: Sites = None,
    method: Annotated[
        str,
        typer.Option(help=f"The probe: {', '.join(PROBES)}.", autocompletion=choices(*PROBES)),
    ] = "logistic",
    extra: Annotated[
        list[str] | None,
        typer.Option(help="random_init, shuffled_tokens, mdl, transfer, curve; may be repeated."),
    ] = None,
    n_seeds: Annotated[int, typer.Option(min=1, help="Splits by text.")] = 3,
    max_samples: Annotated[int, typer.Option(min=10, help="Labelled tokens at most.")] = 4000,
    max_tokens: MaxTokens = 8000,
    backend: Backend = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Held-out accuracy of a probe at every site, with its controls, for one or several labels.

    Example: interp probe gpt2 --labels animacy.csv --extra random_init --extra mdl --out animacy
    """
    from interp import load
    from probes import sweep

    require_place(out)
    require_file(labels, what="file of labels")
    network = load(model, backend=backend, device=device)
    tokens, known = _material(network, model, labels, label, max_tokens, seed)
    where = sites or ["blocks.*.hook_resid_post"]
    if dry_run:
        cost = estimate(network, tokens, known, where, method, n_seeds, max_samples, extra or ())
        say(json.dumps(cost, indent=2) if as_json else _cost(cost))
        return
    call.keep(out)
    found = sweep(
        network, known, where, tokens=tokens, probe=method, extras=extra or (),
        seeds=range(seed, seed + n_seeds), max_samples=max_samples, progress=True,
    )  # fmt: skip
    table = found.table()
    _keep(out, network, found, table)
    if as_json:
        say(json.dumps({"out": str(out), "rows": json.loads(table.to_json(orient="records"))}, indent=2))
    else:
        say(table.round(3).to_string(index=False))
    logger.info("written to %s", out)


def _keep(out: Path, network: Any, found: Any, table: Any) -> None:
    """The table as CSV, a file of each result, and all figures as one page with its JSON."""
    import numpy as np

    from interp.escaping import csv_text
    from interp.report import outcome, report, write
    from interp.runs.files import write_bytes_atomic
    from interp.runs.provenance import provenance
    from interp.study.stations import Plate, Section

    write_bytes_atomic(out / "probes.csv", csv_text(table).encode())
    sections = []
    for i, (name, one) in enumerate(found.items()):  # labels come from files; their names are no paths
        one.save(out / f"label-{i}.safetensors")
        plates = [Plate(title="Accuracy by site", figure=one.plot(), caption=one.convention)]
        if one.transfer is not None:
            plates.append(Plate(title="Used at another site", figure=one.plot_transfer()))
        if one.curve is not None:
            plates.append(Plate(title="With fewer rows", figure=one.plot_curve()))
        best = int(np.argmax(one.value))
        said = f"Best at {one.ticks[0][best]}: {one.value[best]:.3f}, majority class {float(np.mean(one.chance)):.3f}."
        section = Section(name=f"label-{i}", title=str(name), summary=said, plates=tuple(plates))
        sections.append(outcome(section.name, section.title, section=section))
    page = report(f"Probes of {network.name}", sections=sections, provenance=provenance(network))
    write(page, out, name="probes")


def estimate(  # noqa: PLR0913 - what a sweep is given
    network: Any, tokens: Any, known: dict[str, Any], where: list[str], method: str, n_seeds: int, max_samples: int,
    extra: Any,
) -> dict[str, Any]:  # fmt: skip
    """Passes, seconds, memory and disk bytes of a sweep, from one label at one site with one seed.

    Untrained and shuffled baselines read and fit once more each; other extras are not counted, and named.
    Cost: that one sweep, and two passes over at most sixteen texts.
    """
    from probes import sweep

    names = list(dict.fromkeys(str(site) for name in where for site in network.find(name)))
    few = tokens[: min(16, len(tokens))]
    acts = network.capture(few, names)  # the first pass warms up
    began = time.perf_counter()
    network.capture(few, names)
    reading = (time.perf_counter() - began) * len(tokens) / len(few)
    label = next(iter(known))
    began = time.perf_counter()
    sweep(network, known[label], [names[-1]], tokens=tokens, probe=method, seeds=[0], max_samples=max_samples)
    once = time.perf_counter() - began
    times = len(known) * (1 + sum(name in ("random_init", "shuffled_tokens") for name in extra))
    rows = sum(acts[name].numel() * acts[name].element_size() for name in names) * len(tokens) // len(few)
    return {
        "labels": len(known),
        "sites": len(names),
        "forward_passes": len(tokens) * times,
        "seconds": round(times * (reading + max(0.0, once - reading) * len(names) * n_seeds), 1),
        "memory_bytes": rows + sum(p.numel() * p.element_size() for p in network.module.parameters()),
        "disk_bytes": 5_000_000 * len(known),
        "not_counted": [name for name in extra if name in ("mdl", "transfer", "curve")],
    }


def _cost(cost: dict[str, Any]) -> str:
    aside = f", besides {', '.join(cost['not_counted'])}" if cost["not_counted"] else ""
    return (
        f"{cost['labels']} labels at {cost['sites']} sites, {cost['forward_passes']} texts read: about "
        f"{cost['seconds']:.0f} s{aside}, {cost['memory_bytes'] / 1e6:.0f} MB of memory, "
        f"{cost['disk_bytes'] / 1e6:.0f} MB of disk"
    )


def _material(
    network: Any, name: str, path: Path | None, wanted: list[str] | None, n_tokens: int, seed: int
) -> tuple[Any, dict[str, Any]]:
    """The tokens and labels by name."""
    from interp.errors import InputError, nearest
    from interp.toys.collection import embedded, names

    if path is not None:
        from probes.labelled import read_labels

        read = read_labels(network, path)
        return read.tokens, {path.stem: read.labels}
    if name not in names():
        raise InputError(f"{name} has no labels of its own; give a file with --labels")
    sample = embedded(name).sample(n_tokens, seed=seed)
    for one in wanted or ():
        if one not in sample.labels:
            raise InputError(
                f"{name} knows no label {one!r}{nearest(one, sample.labels)} (known: {', '.join(sample.labels)})"
            )
    return sample.tokens, {k: v for k, v in sample.labels.items() if not wanted or k in wanted}
