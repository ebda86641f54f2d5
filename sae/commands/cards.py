"""A coder's model card: what it is, what it was trained on, how well it does on rows that training never saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.escaping import code, markdown
from interp.runs.files import write_bytes_atomic, write_json_atomic
from sae.coder import Coder

if TYPE_CHECKING:
    from sae.commands.material import Material
    from sae.training import Run

__all__ = ["card", "figures", "write_card"]

N_ROWS = 8192
"""Rows that the figures are of."""


@torch.no_grad()
def figures(coder: Coder, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
    """FVU of ``y``, codes used a row, and the share of latents that never fire, as the saved coder is used."""
    if len(x) < 2:
        return {"reason": f"{len(x)} rows were kept apart"}
    error, used, fired = 0.0, 0, torch.zeros(coder.d_sae, dtype=torch.bool)
    for rows, wanted in zip(x.split(1024), y.split(1024), strict=True):
        codes = coder.encode(rows)
        error += float((coder.decode(codes, rows) - wanted).double().square().sum())
        used += int((codes != 0).sum())
        fired |= (codes != 0).any(0)
    power = float((y.double() - y.double().mean(0)).square().sum())
    return {
        "fvu": error / power,
        "l0": used / len(x),
        "dead": float((~fired).double().mean()),
        "n_rows": len(x),
    }


def card(run: Run, found: Material, *, command: str) -> dict[str, Any]:
    """The card as JSON."""
    coder = run.coder
    last = {name: float(column[-1]) for name, column in run.history.items() if len(column)}
    if found.held_out is None:
        measured: dict[str, Any] = {"reason": "too little data to keep any apart"}
    else:
        measured = figures(coder, *found.rows(found.held_out, N_ROWS))
    return {
        "out": str(run.out),
        "coder": {"d_in": coder.d_in, "d_sae": coder.d_sae, "k": coder.k, **coder.make()},
        "data": found.record,
        "held_out": measured,
        "last_batch": last,
        "advice": list(run.advice),
        "config": run.config.as_dict(),
        "provenance": {**run.provenance, "command": command},
    }


def write_card(out: Path, made: dict[str, Any]) -> None:
    """CARD.json, and the same for people in CARD.md."""
    write_json_atomic(out / "CARD.json", made)
    write_bytes_atomic(out / "CARD.md", _text(made).encode())


def _text(made: dict[str, Any]) -> str:
    coder, data, held = made["coder"], made["data"], made["held_out"]
    place = ", ".join(data["sites"]) + (f" -> {', '.join(data['targets'])}" if data["targets"] else "")
    origin = data["model"]["name"] if "model" in data else "a model that the store does not name"
    lines = [
        "# " + markdown(f"{coder['kind']} {coder['wiring']} at {place} of {origin}"),
        "",
        f'{coder["d_in"]} -> {coder["d_sae"]} latents, k = {coder["k"]}. Load it with `sae.load("coder")`.',
        "",
        "## Figures",
        "",
        "| rows | FVU | L0 | dead |",
        "|---|---|---|---|",
    ]
    if "reason" not in held:
        lines.append(
            f"| {held['n_rows']} held out | {held['fvu']:.4f} | {held['l0']:.2f} | {held['dead']:.2%} |"
        )
    last = made["last_batch"]
    lines.append(f"| the last training batch | {last['fvu']:.4f} | {last['l0']:.2f} | {last['dead']:.2%} |")
    lines += [
        "",
        "FVU: squared error over squared distance from the mean. Dead: latents that fire on none of the rows",
    ]
    lines += ["(held out), or not within the window (training)."]
    if "reason" in held:
        lines += [f"No held-out figures: {markdown(held['reason'])}."]
    lines += ["", "## Data", ""]
    lines += [
        f"- {markdown(name)}: {markdown(value)}"
        for name, value in data.items()
        if not isinstance(value, dict)
    ]
    lines += (
        [f"- model: {markdown(data['model']['name'])}, weights {data['model']['weights_sha256']}"]
        if "model" in data
        else []
    )
    lines += ["", "## Training", "", code(made["provenance"]["command"]), ""]
    lines += [f"- {name}: {markdown(value)}" for name, value in made["config"].items()]
    lines += ["", "## Advice given while training", ""]
    lines += [f"- {markdown(text)}" for text in made["advice"]] or ["None."]
    return "\n".join(lines) + "\n"
