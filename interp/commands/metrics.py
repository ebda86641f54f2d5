"""`interp metrics`: rank, spectrum, geometry and similarity of a model's layers, or of a store's sites, in one pass."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import (
    NETWORKS,
    AsJson,
    Backend,
    BatchSize,
    Device,
    DryRun,
    MaxTokens,
    Seed,
    Sites,
    Texts,
    Window,
    choices,
)
from interp.commands.saying import say

if TYPE_CHECKING:
    from interp.results import Result

logger = logging.getLogger("interp")

PAGE_BYTES = 3_000_000  # the page with its drawing library, and the tables


def register(app: typer.Typer) -> None:
    """Add `metrics` to the command line."""
    enroll(app, "metrics", metrics, configured=True)


def metrics(  # noqa: PLR0913 - a command's options
    call: Call,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|STORE",
            help="A model (folder, hub name, embedded network), or the folder of a store that `interp capture` made.",
            autocompletion=choices(*NETWORKS),
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder for the tables, the results and the page.")],
    texts: Texts = None,
    sites: Sites = None,
    quantity: Annotated[
        list[str] | None,
        typer.Option(help="Such as RankMe or curvature; may be repeated.", show_default="all"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="One of an embedded network's labels: how far its classes have collapsed."),
    ] = None,
    similarity: Annotated[
        Literal["blocks", "exact", "none"], typer.Option(help="CKA of all pairs of sites, and how.")
    ] = "blocks",
    baseline: Annotated[
        str | None,
        typer.Option(
            help="random_init or shuffled_tokens: its curves stand where chance does.",
            autocompletion=choices("random_init", "shuffled_tokens"),
        ),
    ] = None,
    parts: Annotated[int, typer.Option(min=1, help="Parts of the rows that errors leave out; 1: none.")] = 4,
    max_tokens: MaxTokens = 32768,
    window: Window = None,
    batch_size: BatchSize = 8,
    backend: Backend = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Rank, spectrum, entropy and geometry at every layer, and CKA between all of them, with errors and chance levels.

    Writes metrics.csv, similarity.csv, results/ (to open with `Result.load`), and metrics.html with its JSON twin.
    Prints the table.

    Example: interp metrics gpt2 --texts stories.jsonl --baseline random_init --out geometry
    """
    from interp.metrics import layer_profile, layer_similarity
    from interp.metrics.overview import keep, table

    require_file(texts)
    require_place(out)
    work = _work(
        subject, texts, label, baseline, max_tokens, window, backend=backend, device=device, seed=seed
    )
    options: dict[str, Any] = {"quantities": quantity, "parts": parts, "batch_size": batch_size, "seed": seed}
    options |= {"baseline": baseline, "labels": work["labels"]}
    if dry_run:
        cost = estimate(work, sites, options, similarity)
        say(json.dumps(cost, indent=2) if as_json else _cost(cost))
        return
    began = time.monotonic()
    call.keep(out)
    profile = layer_profile(work["model"], work["tokens"], sites, **options)
    alike: Result | None = None
    if similarity != "none" and len(next(iter(profile.values())).ticks[0]) > 1:
        alike = layer_similarity(
            work["model"], work["tokens"], sites, method=similarity, batch_size=batch_size
        )
    keep(out, profile, alike)
    page = _page(call, work, profile, alike, out, seed=seed, seconds=time.monotonic() - began)
    values = table(profile)
    if as_json:
        record = {"out": str(out), "page": str(page), "rows": json.loads(values.to_json(orient="records"))}
        say(json.dumps(record, indent=2))
    else:
        say(values.drop(columns=["low", "high"]).round(4).to_string(index=False))
    logger.info("written to %s", out)


def _work(
    subject: str, texts: Path | None, label: str | None, baseline: str | None, max_tokens: int, window: int | None, *,
    backend: Any, device: str, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """The model or store, its tokens and labels, and what they are called."""
    from interp.errors import InputError, nearest

    if _is_store(subject):
        from interp.metrics.stored import StoredRuns
        from interp.stores.opening import open_store

        refused = {"--texts": texts, "--label": label, "--baseline": baseline, "--context": window}
        for name, given in refused.items():
            if given is not None:
                raise InputError(
                    f"{name} goes with a model; {subject} is a store, whose rows are there already"
                )
        runs = StoredRuns(open_store(subject), max_rows=max_tokens)
        source = f"{runs.n_rows} of {runs.store.n_rows} rows of {subject}"
        return {"model": runs, "tokens": None, "labels": None, "source": source, "notes": (), "warnings": ()}
    from interp import load
    from interp.study.material import gather
    from interp.toys.collection import embedded, names

    model = load(subject, backend=backend, device=device)
    own = embedded(subject) if subject in names() else None
    given = gather(model, texts=texts, embedded=own, seed=seed, max_tokens=max_tokens, seq_len=window)
    if label is not None and label not in given.labels:
        known = ", ".join(given.labels) or "none here"
        raise InputError(f"{subject} knows no label {label!r}{nearest(label, given.labels)} (known: {known})")
    return {
        "model": model, "tokens": given.tokens, "labels": None if label is None else given.labels[label],
        "source": given.source, "notes": given.notes if given.natural else (),
        "warnings": () if given.natural else given.notes,
    }  # fmt: skip


def _is_store(subject: str) -> bool:
    """Whether a folder is a store, or holds one, rather than a model."""
    from interp.runs.files import read_json

    folder = Path(subject)
    if not folder.is_dir():
        return False
    if not (folder / "config.json").is_file():
        return any(folder.glob("*/config.json"))
    written = read_json(folder / "config.json")
    return isinstance(written, dict) and not {"model_type", "architectures"} & set(written)


def _page(
    call: Call,
    work: dict[str, Any],
    profile: dict[str, Any],
    alike: Any,
    out: Path,
    *,
    seed: int,
    seconds: float,
) -> Path:
    from interp.metrics.overview import sections
    from interp.report import outcome, report, write
    from interp.runs.provenance import provenance

    first, model = next(iter(profile.values())), work["model"]
    described = model if hasattr(model, "describe") else None
    page = report(
        f"Metrics of {model.name}",
        subtitle=f"Measured on {work['source']}.",
        facts=[
            ("sites", len(first.ticks[0])),
            ("tokens", first.n),
            ("n / d", first.n_over_d),
            ("seed", seed),
        ],
        warnings=work["warnings"],
        notes=work["notes"],
        sections=[outcome(one.name, one.title, section=one) for one in sections(profile, alike)],
        provenance=provenance(
            described, seed=seed, command=call.line, source=work["source"], wall_seconds=round(seconds, 1)
        ),
    )
    return write(page, out, name="metrics")[0]


def estimate(work: dict[str, Any], sites: Any, options: dict[str, Any], similarity: str) -> dict[str, Any]:
    """Passes, seconds, memory and disk bytes, from profiles of the first windows; nothing is written.

    Cost: two profiles, of one and of two batches of windows.
    """
    from interp.metrics import layer_profile
    from interp.metrics.profiles import profile_sites
    from interp.moments.config import MomentsConfig

    model, tokens = work["model"], work["tokens"] if work["tokens"] is not None else work["model"].tokens
    size = options["batch_size"]
    trial = {**options, "baseline": None, "labels": None}

    def timed(count: int) -> float:
        began = time.perf_counter()
        part = tokens[:count]
        layer_profile(
            *((_first(model, part), None) if work["tokens"] is None else (model, part)), sites, **trial
        )
        return time.perf_counter() - began

    few, more = min(size, len(tokens)), min(2 * size, len(tokens))
    timed(few)  # the first pass warms up
    once, twice = timed(few), timed(more)
    each = max(0.0, twice - once) / max(1, more - few) if more > few else once / few
    times = 1 + (options["baseline"] is not None)
    passes = len(tokens) * (times + (similarity != "none")) if work["tokens"] is not None else 0
    names = [str(site) for site in profile_sites(model, sites)]
    width = max(_width(model, name) for name in names)
    config = MomentsConfig.of(
        dict.fromkeys(names, width), similarity == "exact", parts=options["parts"], block=128
    )
    weights = sum(p.numel() * p.element_size() for p in model.module.parameters()) if passes else 0
    return {
        "sites": names,
        "tokens": int(tokens.mask.sum()),
        "forward_passes": passes,
        "seconds": round(
            times * (max(0.0, once - few * each) + each * len(tokens))
            + (similarity != "none") * each * len(tokens),
            1,
        ),
        "memory_bytes": weights + config.n_bytes + 4 * size * tokens.ids.shape[1] * width * len(names),
        "disk_bytes": PAGE_BYTES,
    }


def _first(runs: Any, part: Any) -> Any:
    """The first windows of a store."""
    from interp.metrics.stored import StoredRuns

    return StoredRuns(runs.store, max_rows=max(4, int(part.mask.sum())))


def _width(model: Any, name: str) -> int:
    if hasattr(model, "store"):
        import math

        return math.prod(next(shape for site, shape in model.store.shapes.items() if str(site) == name))
    return model.width(name)


def _cost(cost: dict[str, Any]) -> str:
    return (
        f"{len(cost['sites'])} sites, {cost['tokens']} tokens, {cost['forward_passes']} texts read: "
        f"about {cost['seconds']:.0f} s, {cost['memory_bytes'] / 1e6:.0f} MB of memory, "
        f"{cost['disk_bytes'] / 1e6:.0f} MB of disk"
    )
