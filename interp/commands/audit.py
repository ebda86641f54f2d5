"""`interp audit`: does every site of a model fire, and does an edit there reach the logits?"""

from __future__ import annotations

import json

import typer

from interp.commands.invocation import enroll
from interp.commands.options import AsJson, Backend, Device, Model, Sites
from interp.commands.saying import say


def register(app: typer.Typer) -> None:
    """Add `audit` to the command line."""
    enroll(app, "audit", audit)


def audit(
    model: Model,
    sites: Sites = None,
    backend: Backend = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Perturb every site on a short input and report what happens.

    Exit code 1 if a site is silent: it does not fire, or an edit there moves no logit.

    Example:

        interp audit path/to/model --backend transformer_lens
    """
    from interp import load

    loaded = load(model, backend=backend, device=device)
    report = loaded.audit(sites=sites)
    silent = [row for row in report.rows if not (row["fires"] and row["causal"])]
    if as_json:
        said = {"model": report.model, "backend": report.backend, "silent": len(silent), "sites": report.rows}
        say(json.dumps(said))
    else:
        for row in report.rows:
            state = "causal" if row["causal"] else "inert" if row["fires"] else "silent"
            gradient = "gradient" if row["gradient"] else "no gradient"
            say(f"{row['site']:44} {state:7} {row['effect']:10.3g}  {gradient}  {row['note']}".rstrip())
        causal = len(report.rows) - len(silent)
        say(f"{causal} of {len(report.rows)} sites are causal on {report.model} ({report.backend})")
    if silent:
        raise typer.Exit(1)
