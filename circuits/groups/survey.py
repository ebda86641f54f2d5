"""The live training table: ``python -m circuits.groups.survey --out table`` trains every network and takes it apart.

One row per group, architecture and seed: epochs and CPU seconds to generalise, key irreps, variance explained, losses
with the algorithm out and alone, the order of learning. With ``--runs`` finished runs are kept and not trained again.
Also :func:`universality`: which irreps different seeds and architectures have chosen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from circuits.groups.analysis import reverse_engineer
from circuits.groups.dynamics import Progress, progress_of
from circuits.groups.reading import GroupReading
from interp.errors import InputError, InterpError
from interp.toys import GroupRun, grok

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TASKS", "live_table", "main", "row_of", "universality"]

TASKS = (
    *((name, "mlp") for name in ("C31", "C59", "C113", "D15", "D59", "S4", "A5", "S5", "Q8xC3")),
    *((name, "transformer") for name in ("C31", "C59")),
)


def universality(readings: Iterable[GroupReading], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Which irreps each network of one group uses: a row per network, a column per irrep with its similarity.

    A last row counts the networks in which the irrep is key; similarities of irreps that are not key are left out.

    Raises
    ------
    InputError
        There is no reading, the readings are of different groups, or there are not as many names.
    """
    import pandas as pd

    given = list(readings)
    if not given or len({(r.group, r.word) for r in given}) != 1:
        raise InputError("a universality table takes readings of one group and word, at least one")
    labels = list(names) if names is not None else [f"{r.name} {i}" for i, r in enumerate(given)]
    if len(labels) != len(given):
        raise InputError(f"{len(given)} readings were given {len(labels)} names")
    shown = [label for label in given[0].irreps if label != "trivial"]
    rows = {}
    for name, reading in zip(labels, given, strict=True):
        value = dict(zip(reading.irreps, np.asarray(reading.value), strict=True))
        rows[name] = {label: float(value[label]) if label in reading.key else None for label in shown}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=shown).astype(float)
    table.loc["networks"] = table.notna().sum()
    return table


def row_of(run: GroupRun, reading: GroupReading, progress: Progress) -> dict[str, Any]:
    """The table's row of one run."""
    card = run.card
    similarity = dict(zip(reading.irreps, np.asarray(reading.value).tolist(), strict=True))
    return {
        "group": card["group"],
        "network": card["network"],
        "activation": card["recipe"]["activation"] if card["network"] == "mlp" else "relu",
        "seed": card["seed"],
        "train_fraction": card["recipe"]["train_fraction"],
        "epochs": card["epochs"],
        "epoch_of_99.9": progress.first_epoch("test_accuracy", 0.999 - 1e-12),
        "cpu_seconds": card["cpu_seconds"],
        "test_accuracy": card["test_accuracy"],
        "n_test": card["n_test"],
        "key_irreps": {label: round(similarity[label], 3) for label in reading.key},
        "explained": reading.logits["explained"],
        "residual": reading.logits["residual"],
        "train_loss": reading.losses["train"],
        "test_loss": reading.losses["test"],
        "excluded_loss": reading.losses["excluded"],
        "restricted_loss": reading.losses["restricted"],
        "accuracy_only_key": reading.ablations["only key"]["accuracy"],
        "accuracy_without_key": reading.ablations["without key"]["accuracy"],
        "order_of_learning": progress.order_of_learning(),
        "restricted_falls_first": progress.falls_first,
        "excluded_lowest": min(progress.measures["excluded"]),
        "excluded_rises_first": progress.rises_first,
        "phase": progress.phase,
    }


def live_table(
    tasks: Iterable[tuple[str, str]] = TASKS,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    runs: str | Path | None = None,
    progress: bool | None = None,
) -> list[dict[str, Any]]:
    """Train every task with every seed (or read the run that ``runs`` holds) and take it apart."""
    rows = []
    for name, network in tasks:
        for seed in seeds:
            folder = None if runs is None else Path(runs) / f"{name}-{network}-{seed}"
            if folder is not None and (folder / "final.json").is_file():
                run = GroupRun.load(folder)
            else:
                run = grok(name, seed=seed, network=network, progress=progress)
                if folder is not None:
                    run.save(folder)
            every = max(1, len(run.checkpoints) // 40)
            rows.append(row_of(run, reverse_engineer(run, with_cosets=False), progress_of(run, every=every)))
    return rows


_COLUMNS = (
    *("group", "network", "seed", "epochs", "cpu_seconds", "test_accuracy", "key_irreps", "explained"),
    *("excluded_lowest", "excluded_loss", "restricted_loss", "test_loss"),
    *("accuracy_only_key", "accuracy_without_key", "phase"),
)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table's main columns."""

    def cell(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {number:.2f}" for key, number in value.items())
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(cell(row[column]) for column in _COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table as JSON and Markdown; exit code 1 if a network did not reach 99.9 % test accuracy."""
    parser = argparse.ArgumentParser(prog="python -m circuits.groups.survey", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="writes <out>.json and <out>.md")
    parser.add_argument("--groups", nargs="*", help="only these, such as S5 C59")
    parser.add_argument("--networks", nargs="*", help="only these: mlp, transformer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, help="folder of runs to keep, and to go on from")
    options = parser.parse_args(arguments)
    from interp.runs.files import write_bytes_atomic, write_json_atomic

    torch.set_num_threads(1)
    tasks = [
        task
        for task in TASKS
        if task[0] in (options.groups or {task[0]}) and task[1] in (options.networks or {task[1]})
    ]
    try:
        rows = live_table(tasks, seeds=range(options.seeds), runs=options.runs)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(options.out.with_suffix(".json"), rows)
        write_bytes_atomic(options.out.with_suffix(".md"), markdown(rows).encode())
    except (InterpError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0 if rows and all(row["test_accuracy"] >= 0.999 for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
