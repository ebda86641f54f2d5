"""`interp sae eval`: how much a coder gives back, of its rows and of the model's predictions, and what latents know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.commands.invocation import enroll, require_file
from interp.commands.options import AsJson, Backend, Device, MaxTokens, Model, Seed, Texts
from interp.commands.saying import say
from interp.escaping import visible

_NUMBERS = (
    "explained_variance", "explained_variance_per_row", "mse", "l0", "l1", "dead", "dense", "cosine", "norm_ratio",
    "relative_bias", "shrinkage",
)  # fmt: skip


def register(group: typer.Typer) -> None:
    """Add `eval` to `interp sae`."""
    enroll(group, "eval", judge, configured=True)


def judge(
    coder: Annotated[Path, typer.Argument(help="A coder's folder, or a run's.")],
    model: Model,
    site: Annotated[str, typer.Option(help="Where the coder reads.")],
    texts: Texts = None,
    max_tokens: MaxTokens = 50_000,
    seed: Seed = 1,
    skip_first: Annotated[
        bool, typer.Option("--skip-first", help="Leave each text's first token out.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a coder: reconstruction, sparsity, the loss through the model, and labels where they are known.

    Example: interp sae eval runs/mini mini --site blocks.1.hook_resid_post
    """
    from sae import evaluate
    from sae.commands.reading import read

    require_file(texts)
    found = read(
        coder, model, site, texts=texts, max_tokens=max_tokens, seed=seed, device=device, backend=backend
    )
    result = evaluate(found.coder, found.tokens, model=found.model, site=found.site, skip_first=skip_first)
    record: dict[str, Any] = {
        "coder": str(coder),
        "model": found.model.name,
        "site": found.site,
        "tokens": found.source,
        "n": result.n,
        "fvu": float(result.value),
        "fvu_stderr": result.stderr,
        **{name: getattr(result, name) for name in _NUMBERS},
        "baselines_fvu": dict(result.baselines),
        "recovered": dict(result.recovered),
        "density_histogram": result.density_histogram.tolist(),
    }
    if found.labels:
        record["labels"] = _labels(found)
    say(json.dumps(record, indent=2) if as_json else _told(record))


def _labels(found: Any) -> list[dict[str, Any]]:
    import sae

    codes = sae.encode(found.coder, found.model, found.tokens, found.site)
    table = sae.label_latents(codes, found.labels, names=found.names).to_frame()
    return table.round(4).to_dict("records")


def _told(record: dict[str, Any]) -> str:
    width = max(len(name) for name in (*_NUMBERS, "ce recovered (mean ablation)")) + 2
    lines = [
        f"{visible(record['coder'])} at {record['site']} of {visible(record['model'])}, "
        f"{record['n']} tokens of {visible(record['tokens'])}",
        "",
    ]
    lines.append(f"{'fvu':{width}}{record['fvu']:.4f} (standard error {record['fvu_stderr']:.4f})")
    lines += [f"{name:{width}}{record[name]:.4g}" for name in _NUMBERS]
    lines += [f"{'fvu of ' + name:{width}}{value:.4g}" for name, value in record["baselines_fvu"].items()]
    told = {
        "ce": "ce recovered (mean ablation)", "ce_against_zero": "ce recovered (zero ablation)",
        "kl": "kl recovered (mean ablation)", "kl_against_zero": "kl recovered (zero ablation)",
        "ce_clean": "ce of the model, nats", "ce_spliced": "ce with the coder, nats",
    }  # fmt: skip
    lines += [f"{title:{width}}{record['recovered'][name]:.4f}" for name, title in told.items()]
    for row in record.get("labels", [])[:20]:
        lines.append(f"{visible(row['concept']):{width}}latent {row['latent']}: AUROC {row['auroc']:.3f}, "
                     f"precision {row['precision']:.2f}, recall {row['recall']:.2f}")  # fmt: skip
    return "\n".join(lines)
