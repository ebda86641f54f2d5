"""`interp probe`: can a label be read at a model's sites? Your own labels, or those an embedded network knows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands.analyze import Backend

logger = logging.getLogger("interp")


def register(app: typer.Typer) -> None:
    """Add `probe` to the command line."""
    app.command("probe")(probe)


def probe(  # noqa: PLR0913 - a command's options
    model: Annotated[str, typer.Argument(help="A folder, a hub name, or an embedded network.")],
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
    sites: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Where to read; may be repeated.")
    ] = None,
    method: Annotated[str, typer.Option(help="logistic, lda, ridge or mass_mean.")] = "logistic",
    extra: Annotated[
        list[str] | None,
        typer.Option(help="random_init, shuffled_tokens, mdl, transfer, curve; may be repeated."),
    ] = None,
    n_seeds: Annotated[int, typer.Option(min=1, help="Splits by text.")] = 3,
    max_samples: Annotated[int, typer.Option(min=10, help="Labelled tokens at most.")] = 4000,
    n_tokens: Annotated[int, typer.Option(min=100, help="Tokens of an embedded network's own text.")] = 8000,
    backend: Annotated[Backend, typer.Option(help="The library that runs it.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="The first split; texts of an embedded network.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object to standard output.")
    ] = False,
) -> None:
    """Held-out accuracy of a probe at every site, with its controls, for one or several labels.

    Example: interp probe gpt2 --labels animacy.csv --extra random_init --extra mdl --out animacy
    """
    from interp import load
    from probes import sweep

    network = load(model, backend=backend, device=device)
    tokens, known = _material(network, model, labels, label, n_tokens, seed)
    found = sweep(
        network, known, sites or ["blocks.*.hook_resid_post"], tokens=tokens, probe=method, extras=extra or (),
        seeds=range(seed, seed + n_seeds), max_samples=max_samples, progress=True,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    table = found.table()
    table.to_csv(out / "probes.csv", index=False)
    for i, (name, one) in enumerate(found.items()):  # labels come from files; their names are no paths
        one.save(out / f"label-{i}.safetensors")
        figures = [one.plot()]
        figures += [one.plot_transfer()] if one.transfer is not None else []
        figures += [one.plot_curve()] if one.curve is not None else []
        for j, figure in enumerate(figures):
            figure.update_layout(title=name).write_html(out / f"label-{i}-{j}.html", include_plotlyjs=True)
    if as_json:
        typer.echo(table.to_json(orient="records", indent=2))
    else:
        typer.echo(table.round(3).to_string(index=False))
    logger.info("written to %s", out)


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
