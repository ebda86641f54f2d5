"""The SAE station: a small TopK autoencoder on the middle of the residual stream, judged on texts it has not seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.sites import Site
from interp.study.sampling import Rows, draw, layer_sites
from interp.study.stations import Estimate, Plate, Section, Study, Table
from sae.config import TrainConfig
from sae.data import row_source
from sae.evaluation import Evaluation, evaluate
from sae.full_form import bearings_of, findings_of, in_full, n_passes, shown_tokens
from sae.training import Run, train

__all__ = ["STATION", "SaeStation"]

N_ROWS = 40_000
LEAST = 512
BUDGET = 3e11
"""Multiplications that training may cost: half a minute on one slow core."""
MAX_PASSES = 50
"""Over the rows: a small sample read more often is learnt by heart."""
N_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SaeStation:
    """Train, evaluate beside PCA and a random dictionary, show what the strongest latents fire on."""

    name: str = "sae"
    title: str = "A sparse autoencoder"
    order: int = 30

    def applies(self, study: Study) -> str | None:
        """It needs a site of some width and a few hundred tokens."""
        sites = layer_sites(study)
        if not sites:
            return "this model offers no sites to train on"
        n = _n_rows(study)
        if n < LEAST:
            return f"{n} rows are too few to train a dictionary and judge it on others; at least {LEAST} are needed"
        site = middle_site(sites)
        width = _width(study, site)
        return (
            None if width >= 4 else f"{site} is {width} wide; a sparse dictionary needs at least 4 dimensions"
        )

    def estimate(self, study: Study) -> Estimate:
        """The training's matrix products dominate."""
        d = _width(study, middle_site(layer_sites(study)))
        config = settings(min(_most(study), _n_rows(study)), d, study.seed, scale=study.effort.scale)
        flops = _step_cost(config.batch_size, d, config.d_sae) * config.steps
        passes, more = 0.0 if study.store is not None else float(len(study.tokens)), 0.0
        if study.effort.full:
            passes += n_passes(study)
            more = (
                2 + 4e-4 * shown_tokens(study) + 1e-3 * config.d_sae
            )  # the feature page: sorting, not products
        memory = 4 * (
            min(N_ROWS, _n_rows(study)) * d * 2 + 8 * d * config.d_sae + 4 * config.batch_size * config.d_sae
        )
        return Estimate(forward_passes=passes, seconds=1.0 + flops / 2.5e10 + more, memory_bytes=memory)

    def run(self, study: Study) -> Section:
        """Split by text, train on most of it, evaluate on the rest."""
        site = middle_site(layer_sites(study))
        rows = draw(study, [site], n_rows=_most(study), seed=study.seed)
        learn, held = _split(rows, study.seed)
        x, x_held = rows.acts[site][learn], rows.acts[site][held]
        config = settings(len(x), x.shape[1], study.seed, scale=study.effort.scale)
        run = train(x, config, study.out / _folder(x, config), resume=True, progress=study.progress)
        groups = rows.doc[held] if len(rows.doc[held].unique()) > 1 else None
        found = evaluate(run.coder, x_held, reference=x, groups=groups, seed=study.seed)
        section = Section(
            name=self.name,
            title=self.title,
            summary=_summary(site, run, found, len(x)),
            plates=_plates(site, run, found),
            tables=(_top_tokens(study, run, rows.at(held), x_held),),
            numbers=_numbers(site, run, found, len(x)),
            caveats=_caveats(run, through=study.effort.full),
            findings=findings_of(site, found),
            bearings=bearings_of(run.coder, site, found.density),
        )
        if not study.effort.full:
            return section
        return in_full(section, study, run.coder, site, rows.doc[held].unique())


STATION = SaeStation()


def middle_site(sites: Sequence[Site]) -> Site:
    """The output of the middle block; for a plain module the middle one of its sites."""
    after = [site for site in sites if site.kind == "resid_post"]
    return after[(len(after) - 1) // 2] if after else sites[(len(sites) - 1) // 2]


def _width(study: Study, site: Site) -> int:
    """Numbers a row of ``site``, heads side by side."""
    if study.store is not None:
        return math.prod(study.store.shapes[site])
    value = study.model.capture(study.tokens[:1], site)[site]
    return value[0].numel() if value.ndim < 3 else value[0, 0].numel()


def _most(study: Study) -> int:
    return study.effort.of(N_ROWS, least=4096)


def settings(n_rows: int, d: int, seed: int, *, scale: float = 1.0) -> TrainConfig:
    """A dictionary that fits the data and the budget: up to 8 d latents, d / 8 of them a row (4 to 32)."""
    d_sae = max(16, min(8 * d, 2048, n_rows // 8))
    k = min(d_sae, max(4, min(32, d // 8)))
    batch = max(32, min(512, n_rows // 4))
    steps = min(int(scale * BUDGET / _step_cost(batch, d, d_sae)), MAX_PASSES * n_rows // batch, 1500)
    return TrainConfig(
        d_sae=d_sae, k=k, steps=max(200, steps), batch_size=batch, seed=seed, checkpoint_every=500
    )


def _step_cost(batch: int, d: int, d_sae: int) -> float:
    return 4.0 * batch * d * d_sae + 40.0 * batch * d_sae


def _n_rows(study: Study) -> int:
    return int(study.store.n_rows) if study.store is not None else int(study.tokens.mask.sum())


def _split(rows: Rows, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to learn from and to judge on: whole texts, a fifth of them held out."""
    texts = rows.doc.unique()
    order = texts[torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))]
    if len(texts) < 5:  # too few texts to hold one out: split by row, and the caption of the numbers says n
        order, member = (
            torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)),
            torch.arange(len(rows)),
        )
    else:
        member = rows.doc
    away = torch.isin(member, order[: max(1, len(order) // 5)])
    return torch.nonzero(~away).flatten(), torch.nonzero(away).flatten()


def _folder(x: Tensor, config: TrainConfig) -> str:
    """A name that belongs to these data and settings alone, so that an interrupted job goes on with its own run."""
    identity = json.dumps(config.as_dict(), sort_keys=True) + row_source(x).fingerprint()
    return "sae-" + hashlib.sha256(identity.encode()).hexdigest()[:12]


def _summary(site: Site, run: Run, found: Evaluation, n: int) -> str:
    pca, random = found.baselines.values()
    k = run.config.k
    return (
        f"{run.config.d_sae} directions, {found.l0:.1f} of them a token, learnt from {n} tokens at {site}, "
        f"leave {float(found.value):.1%} ± "
        f"{1.96 * float(found.stderr or 0):.1%} of the variance of unseen texts unexplained, against {pca:.1%} "
        f"for PCA with {k} components; "
        f"as many random directions leave {random:.1%}. {found.dead:.0%} of the latents never fire there."
    )


def _plates(site: Site, run: Run, found: Evaluation) -> tuple[Plate, ...]:
    from sae.plots import density_chart

    compared = found.plot().update_layout(title=None)
    silent = int((found.density == 0).sum())
    return (
        Plate(
            title="Variance left unexplained",
            figure=compared,
            caption=(
                f"At {site}, {found.n} held-out tokens; whisker: 95% interval (jackknife over texts). PCA uses "
                "as many numbers a token as the coder; "
                "the random dictionary has as many directions, each token weighs its k best-aligned by least squares."
            ),
        ),
        Plate(
            title="Training",
            figure=run.plot(),
            caption="Of the training batch. A latent counts as dead when it has not fired for a tenth of the steps.",
        ),
        Plate(
            title="How often latents fire",
            figure=density_chart(found.density),
            caption=(
                f"Over {found.n} held-out tokens; {silent} of {run.config.d_sae} latents that never fire are not drawn."
            ),
        ),
    )


def _top_tokens(study: Study, run: Run, rows: Rows, x: Tensor) -> Table:
    """The latents that carry most of the reconstruction, and the tokens on which each is largest."""
    with torch.no_grad():
        codes = run.coder.encode(x)
    energy = codes.square().sum(0)
    share = energy / energy.sum().clamp_min(1e-30)
    lines = []
    for latent in energy.argsort(descending=True)[:N_SHOWN].tolist():
        order = codes[:, latent].argsort(descending=True)[:60]
        seen: dict[str, float] = {}
        for i in order.tolist():
            strength = float(codes[i, latent])
            if strength > 0 and len(seen) < 6:
                seen.setdefault(_shown(study, rows, i), strength)
        text = " | ".join(f"{token} ({strength:.2g})" for token, strength in seen.items())
        lines.append(
            (
                latent,
                round(float(share[latent]), 4),
                round(float((codes[:, latent] > 0).float().mean()), 4),
                text,
            )
        )
    return Table(
        title="Strongest latents",
        columns=("latent", "share of energy", "fires on", "tokens it is largest on, with the one before"),
        rows=tuple(lines),
        caption="Held-out tokens. Chosen by energy, not by how easily they can be named.",
    )


def _shown(study: Study, rows: Rows, i: int) -> str:
    """The token of a row in brackets, behind the one before it; inputs of a few tokens whole."""
    show, doc, pos = study.tokens.show, int(rows.doc[i]), int(rows.pos[i])
    ids = study.tokens.ids[doc].tolist()
    if pos < 0:
        return " ".join(show(token) for token in ids)
    first = 0 if len(ids) <= 4 else max(0, pos - 1)
    last = len(ids) if len(ids) <= 4 else pos + 1
    words = [show(ids[j]) for j in range(first, last)]
    # strings that carry their own spaces are set as they are; symbols that carry none would run together
    spaced = any(not {" ", "\n", "\u2581"}.isdisjoint(show(token)) for token in ids)
    marked = (f"[{word}]" if first + j == pos else word for j, word in enumerate(words))
    return ("" if spaced else " ").join(marked)


def _numbers(site: Site, run: Run, found: Evaluation, n_train: int) -> dict[str, object]:
    final = {name: float(values[-1]) for name, values in run.history.items() if len(values)}
    return {
        "site": str(site),
        "config": run.config.as_dict(),
        "n_train": n_train,
        "n": found.n,
        "fvu": float(found.value),
        "fvu_stderr": _finite(found.stderr),
        "explained_variance": found.explained_variance,
        "convention": found.convention,
        "l0": found.l0,
        "dead": found.dead,
        "cosine": found.cosine,
        "baselines_fvu": dict(found.baselines),
        "training": final,
        "folder": None if run.out is None else run.out.name,
    }


def _finite(value: object) -> float | None:
    number = float("nan") if value is None else float(np.asarray(value))
    return number if np.isfinite(number) else None


def _caveats(run: Run, *, through: bool) -> tuple[str, ...]:
    small = run.config.steps * run.config.batch_size
    return (
        f"A small dictionary, trained for {run.config.steps} steps ({small} rows, repeats included): enough to "
        "see that it works, not to study single features.",
        *(
            ()
            if through
            else (
                "Explained variance is not faithfulness: nothing here says what the model's output would be if it saw "
                "the reconstruction.",
            )
        ),
        "That a latent's strongest tokens look alike does not show what it means; weaker firings, most of "
        "them, are not shown.",
    )
