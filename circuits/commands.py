"""`interp circuit find`: from a task's name, or a file of pairs, to a graph and its faithfulness on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.estimating import say_cost
from circuits.options import (
    Ablation,
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
from circuits.telling.commands import differ, tell
from interp.commands.invocation import Call, enroll, require_place
from interp.commands.options import AsJson, Backend, Device, DryRun, ModelOption, Seed
from interp.commands.saying import say


def register(app: typer.Typer) -> None:
    """Add `circuit` to the command line."""
    group = typer.Typer(help="Find circuits and say how faithful they are.", no_args_is_help=True)
    enroll(group, "find", find, configured=True)
    enroll(group, "report", tell, configured=True)
    enroll(group, "diff", differ)
    app.add_typer(group, name="circuit")


def find(  # noqa: PLR0913  (one option each)
    call: Call,
    task: Task,
    model: ModelOption = "mini",
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("circuit"),
    method: Method = "eap-ig",
    steps: Steps = 5,
    n: Pairs = 64,
    split: Split = "heldout",
    ablation: Ablation = "corrupted",
    least: Least = 0.9,
    check: Check = 50,
    gqa: Grouping = "ungrouped",
    seed: Seed = 0,
    backend: Backend = "auto",
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Score every edge, choose the smallest circuit that is faithful enough, check the scores, and write it all.

    Writes graph.safetensors (circuits.Graph.load), faithfulness.safetensors, edges.csv, circuit.json.

    Examples:

        interp circuit find planted --model planted:two-hop --out circuit

        interp circuit find ioi --model gpt2 --out circuit
    """
    import circuits
    from circuits.exchange import write_csv
    from interp.runs.files import write_json_atomic
    from interp.runs.provenance import provenance

    require_pairs(task)
    require_place(out)
    loaded, asked = question(task, model, device=device, backend=backend, n=n, split=split, seed=seed)
    if dry_run:
        say_cost(loaded, asked, method=method, steps=steps, gqa=gqa, check=check, as_json=as_json)
        return
    call.keep(out)
    options: dict[str, Any] = {"ablation": ablation}
    graph = circuits.attribute(loaded, asked, method=method, steps=steps, gqa=gqa, **options)  # type: ignore[arg-type]
    faithfulness = circuits.evaluate(loaded, graph, asked, seed=seed, **options)
    graph = circuits.shrink(loaded, graph, asked, least=least, **options)
    size = graph.provenance["shrunk"]["size"]
    chosen = circuits.evaluate(loaded, graph, asked, sizes=[size], n_random=20, seed=seed, **options)
    if check and method != "exact":
        worst = graph.order()[:check]
        graph = circuits.edge_effects(loaded, asked, edges=worst, graph=graph, **options)
    record = _record(graph, faithfulness, chosen, asked)
    record["provenance"] = provenance(loaded, seed=seed, command=call.line)
    graph.save(out / "graph.safetensors")
    faithfulness.save(out / "faithfulness.safetensors")
    write_csv(graph, out / "edges.csv")
    write_json_atomic(out / "circuit.json", record)
    if as_json:
        say(json.dumps(record, indent=2))
        return
    say(_sentence(record))
    say(str(out / "circuit.json"))


def _record(graph: Any, faithfulness: Any, chosen: Any, question: Any) -> dict[str, Any]:
    describe = getattr(question, "describe", None)
    shrunk = graph.provenance["shrunk"]
    caveats = []
    if shrunk["size"] == graph.n_edges:
        caveats.append(f"nothing smaller than the whole network reaches a faithfulness of {shrunk['least']}")
    if max(faithfulness.value) > 1.1:
        caveats.append(
            "some circuits overshoot (faithfulness above 1): they leave out parts that work against the task"
        )
    if graph.n < 30:
        caveats.append(f"{graph.n} examples are few: the scores' standard errors are wide")
    return {
        "task": describe() if describe else {"task": type(question).__name__, "n": graph.n},
        "method": graph.method,
        "convention": graph.convention,
        "n_edges": graph.n_edges,
        "circuit": graph.circuit() if graph.chosen.sum() <= 5000 else None,
        "size": shrunk["size"],
        "edges": int(graph.chosen.sum()),
        "kept": {
            "faithfulness": float(chosen.value[0]),
            "interval": chosen.interval[0].tolist(),
            "random": float(chosen.control.mean()),
            "random_most": float(chosen.control.max()),
            "completeness": float(chosen.completeness[0]),
            "least": shrunk["least"],
            "by": shrunk["by"],
            "ablation": shrunk["ablation"],
        },
        "faithfulness": {
            "convention": faithfulness.convention,
            "sizes": faithfulness.sizes.tolist(),
            "value": [float(v) for v in faithfulness.value],
            "interval": faithfulness.interval.tolist(),
            "random": faithfulness.control.mean(0).tolist(),
            "cpr": faithfulness.cpr,
            "cmd": faithfulness.cmd,
            "log_area": faithfulness.log_area,
        },
        "caveats": caveats,
    }


def _sentence(record: dict[str, Any]) -> str:
    kept = record["kept"]
    return (
        f"{record['edges']} of {record['n_edges']} edges keep {kept['faithfulness']:.0%} of the behaviour "
        f"(random circuits of that size: {kept['random']:.0%})."
    )
