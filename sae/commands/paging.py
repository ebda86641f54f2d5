"""`interp sae dashboard`: the feature page of a coder, one file that needs no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(group: typer.Typer) -> None:
    """Add `dashboard` to `interp sae`."""
    group.command("dashboard")(write)


def write(
    coder: Annotated[Path, typer.Argument(help="A coder's folder, or a run's.")],
    model: Annotated[
        str, typer.Argument(help="The model it belongs to: a folder, a hub name, an embedded one.")
    ],
    site: Annotated[str, typer.Option(help="Where the coder reads.")],
    out: Annotated[Path, typer.Option(help="The page; its JSON twin lies beside it.")] = Path(
        "features.html"
    ),
    texts: Annotated[Path | None, typer.Option(help="What the model reads: .jsonl, or .txt.")] = None,
    n_tokens: Annotated[int, typer.Option(min=100, help="At most about so many tokens.")] = 200_000,
    causal: Annotated[int, typer.Option(min=0, help="How many latents, the densest, are tried out too.")] = 0,
    twin: Annotated[bool, typer.Option(help="Write the JSON twin, in Neuronpedia's schema.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of texts and of drawn examples.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object to standard output.")
    ] = False,
) -> None:
    """Write a page that shows what every latent does: examples, logits, neighbours, a map; prints its path.

    Example: interp sae dashboard runs/mini mini --site blocks.1.hook_resid_post --out features.html
    """
    import numpy as np

    import sae
    from sae.commands.reading import read

    found = read(coder, model, site, texts=texts, n_tokens=n_tokens, seed=seed, device=device)
    tried: list[int] = []
    if causal:
        counts = sae.encode(found.coder, found.model, found.tokens, found.site).counts
        tried = [int(j) for j in np.argsort(-counts)[:causal] if counts[j]]
    made = sae.dashboard(
        found.coder, found.model, found.tokens, found.site, out=out, labels=found.labels or None,
        names=found.names or None, causal=tried, json=twin, seed=seed,
    )  # fmt: skip
    record = {
        "html": str(made.html),
        "json": None if made.json is None else str(made.json),
        "n_latents": made.n_latents,
        "n_tokens": made.n_tokens,
        "bytes": made.n_bytes,
        "seconds": round(made.seconds, 2),
    }
    typer.echo(json.dumps(record, indent=2) if as_json else str(made.html))
