"""`interp sae dashboard`: the feature page of a coder, one file that needs no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from interp.commands.invocation import ECHO, Call, enroll, require_file, require_place
from interp.commands.options import AsJson, Backend, Device, DryRun, MaxTokens, Model, Seed, Texts
from interp.commands.saying import say


def register(group: typer.Typer) -> None:
    """Add `dashboard` to `interp sae`."""
    enroll(group, "dashboard", write, configured=True)


def write(  # noqa: PLR0913 - a command's options
    call: Call,
    coder: Annotated[Path, typer.Argument(help="A coder's folder, or a run's.")],
    model: Model,
    site: Annotated[str, typer.Option(help="Where the coder reads.")],
    out: Annotated[Path, typer.Option(help="The page; its JSON twin lies beside it.")] = Path(
        "features.html"
    ),
    texts: Texts = None,
    max_tokens: MaxTokens = 200_000,
    causal: Annotated[int, typer.Option(min=0, help="How many latents, the densest, are tried out too.")] = 0,
    twin: Annotated[bool, typer.Option(help="Write the JSON twin, in Neuronpedia's schema.")] = True,
    seed: Seed = 1,
    backend: Backend = "auto",
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a page that shows what every latent does: examples, logits, neighbours, a map; prints its path.

    Example: interp sae dashboard runs/mini mini --site blocks.1.hook_resid_post --out features.html
    """
    import numpy as np

    import sae
    from sae.commands.reading import read

    require_file(texts)
    require_place(out.parent)
    found = read(
        coder, model, site, texts=texts, max_tokens=max_tokens, seed=seed, device=device, backend=backend
    )
    if dry_run:
        from sae.commands.estimate import estimate_page, told_page

        cost = estimate_page(found, out, causal=causal)
        say(json.dumps(cost, indent=2) if as_json else told_page(cost))
        return
    call.keep(out.parent, name=f"{out.stem}.{ECHO}")
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
    say(json.dumps(record, indent=2) if as_json else str(made.html))
