"""What the SAE station hands to the index over the layers, and what it adds in its full form.

In full: what a reconstruction costs the model's prediction, which latents tell a task's clean prompts from its
corrupted ones, and the feature page with every latent's examples and effect on the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from interp.errors import InputError, InterpError
from interp.sites import Site
from interp.study.findings import STREAM, Bearings, Finding
from interp.study.stations import Leaf, Section, Study, Table
from sae.coder import Coder
from sae.evaluation import Evaluation

__all__ = ["bearings_of", "findings_of", "in_full", "n_passes", "shown_tokens"]

PAGE = "features.html"
N_PAGE = 16_384
"""Tokens that the feature page reads."""
N_THROUGH = 64
"""Held-out texts that the spliced model reads."""
N_SHOWN = 12


def shown_tokens(study: Study) -> int:
    """How many tokens the feature page reads."""
    return min(N_PAGE, int(study.tokens.mask.sum()))


def n_passes(study: Study) -> float:
    """Forward passes of the full form."""
    share = shown_tokens(study) / max(1, int(study.tokens.mask.sum()))
    return share * len(study.tokens) + 4 * min(N_THROUGH, len(study.tokens)) + 64


def findings_of(site: Site, found: Evaluation) -> tuple[Finding, ...]:
    """Reconstruction and sparsity of the whole dictionary."""
    value, half = float(found.value), None if found.stderr is None else 1.96 * float(found.stderr)
    best = min(found.baselines.values())
    return (
        Finding(
            kind="dictionary", name="", site=str(site), measure="of the variance unexplained", value=value, n=found.n,
            low=None if half is None else value - half, high=None if half is None else value + half, href="#sae",
        ),
        Finding(
            kind="dictionary", name="", site=str(site), measure="latents a token", value=found.l0, n=found.n,
            href="#sae",
        ),
        Finding(
            kind="dictionary", name="", site=str(site), measure="of the latents never fire", value=found.dead,
            n=found.n, href="#sae", shown=False,
        ),
        Finding(
            kind="dictionary", name="", site=str(site), measure="of the variance unexplained by the best baseline",
            value=best, n=found.n, href="#sae", shown=False,
        ),
    )  # fmt: skip


def bearings_of(coder: Coder, site: Site, density: np.ndarray) -> tuple[Bearings, ...]:
    """The directions of all latents that fire."""
    alive = torch.as_tensor(np.flatnonzero(density > 0))
    if not len(alive):
        return ()
    return (
        Bearings(
            kind="latent", space=STREAM if site.kind.startswith("resid") else str(site), site=str(site),
            names=tuple(f"latent {i}" for i in alive.tolist()), vectors=coder.W_dec.detach().float().cpu()[alive],
            hrefs=tuple("#sae" for _ in range(len(alive))),
        ),
    )  # fmt: skip


def in_full(section: Section, study: Study, coder: Coder, site: Site, held: Tensor) -> Section:
    """The section with all that the full form adds; a part that this model does not allow is a caveat with its reason.

    Parameters
    ----------
    held
        Rows of ``study.tokens`` that the coder has not been trained on.
    """
    parts: list[tuple[str, Callable[[Section], Section]]] = [
        ("The loss through the model", lambda s: _through(s, study, coder, site, held)),
        ("The feature page", lambda s: _paged(s, study, coder, site)),
        ("The latents' answer to the task", lambda s: _answering(s, study, coder, site)),
    ]
    for what, add in parts:
        try:
            section = add(section)
        except (InterpError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            section = replace(section, caveats=(*section.caveats, f"{what} was left out: {reason}"))
    return section


def _through(section: Section, study: Study, coder: Coder, site: Site, held: Tensor) -> Section:
    from sae.splicing import loss_recovered

    if not study.model.causal:
        raise InputError(f"{study.model.name} predicts no next token")
    texts = study.tokens.select(held[:N_THROUGH])
    loss = loss_recovered(coder, study.model, texts, site, skip_first=True)
    value, half = float(loss.value), None if loss.stderr is None else 1.96 * float(loss.stderr)
    said = f" With its reconstruction in the model's place, {value:.1%} of what the site is worth to the loss is kept"
    said += "." if half is None else f" (± {half:.1%}; n = {loss.n} tokens, against mean ablation)."
    finding = Finding(
        kind="dictionary", name="", site=str(site), measure="of the loss recovered", value=value, n=loss.n, href="#sae",
        low=None if half is None else value - half, high=None if half is None else value + half,
    )  # fmt: skip
    numbers = {
        "value": value, "stderr": None if loss.stderr is None else float(loss.stderr), "n": loss.n,
        "against_zero": loss.ce_against_zero, "kl": loss.kl, "losses": dict(loss.losses), "convention": loss.convention,
    }  # fmt: skip
    return replace(
        section,
        summary=section.summary + said,
        findings=(*section.findings, finding),
        numbers={**section.numbers, "loss_recovered": numbers},
    )


def _paged(section: Section, study: Study, coder: Coder, site: Site) -> Section:
    """The feature page, and links to it from the table and the bearings."""
    from sae.gallery.dashboarding import dashboard

    rows = max(1, round(len(study.tokens) * shown_tokens(study) / max(1, int(study.tokens.mask.sum()))))
    texts = study.tokens[:rows]
    labels = {name: grid[:rows] for name, grid in study.labels.items()} or None
    made = dashboard(coder, study.model, texts, site, out=study.out / PAGE, labels=labels, seed=study.seed)
    leaf = Leaf(
        title="Every latent on a page of its own",
        path=made.html,
        caption=f"Examples, effect on the logits, neighbours; {made.n_tokens} tokens.",
    )
    bearings = tuple(
        replace(b, hrefs=tuple(study.link(PAGE, f"#f={name.removeprefix('latent ')}") for name in b.names))
        if b.kind == "latent" else b
        for b in section.bearings
    )  # fmt: skip
    return replace(section, leaves=(*section.leaves, leaf), bearings=bearings)


@torch.no_grad()
def _answering(section: Section, study: Study, coder: Coder, site: Site) -> Section:
    """Which latents differ between clean and corrupted prompts at the last token."""
    task = study.task
    if task is None:
        return section
    sides = []
    for tokens in (task.clean, task.corrupted):
        value = study.model.capture(tokens, site, batch_size=32)[site].cpu()
        if value.ndim > 2:  # a row a token, not a row an input
            value = value[torch.arange(len(tokens)), tokens.lengths.long().cpu() - 1]
        sides.append(coder.encode(value.flatten(1).float()).double())
    change = sides[0] - sides[1]
    mean, error = change.mean(0), change.std(0) / len(change) ** 0.5
    clear = mean.abs() > 3.3 * error  # of some hundred latents that fire at all, by chance less than one
    size = mean.abs() * coder.W_dec.detach().double().norm(dim=1).cpu() * clear
    order = [int(i) for i in size.argsort(descending=True)[:N_SHOWN] if size[i] > 0]
    href = study.link(PAGE, "#f={}") if section.leaves else "#sae"
    rows = tuple(
        (
            i,
            *(
                float(f"{float(v):.4g}")
                for v in (sides[0][:, i].mean(), sides[1][:, i].mean(), mean[i], 1.96 * error[i])
            ),
        )
        for i in order
    )
    table = Table(
        title=f"Latents that tell clean from corrupted prompts ({task.name})",
        columns=("latent", "clean", "corrupted", "difference", "± (95%)"),
        rows=rows,
        caption=(
            f"Mean code at the last token of {len(change)} pairs; those whose difference is more than 3.3 standard "
            "errors, by the length of what they write."
        ),
    )
    findings = tuple(
        Finding(
            kind="latent", name=f"latent {i}", site=str(site), measure=f"more on clean prompts of {task.name}",
            value=float(mean[i]), low=float(mean[i] - 1.96 * error[i]), high=float(mean[i] + 1.96 * error[i]),
            n=len(change), href=href.format(i), own=True,
        )
        for i in order
    )  # fmt: skip
    return replace(section, tables=(*section.tables, table), findings=(*section.findings, *findings))
