"""What a dictionary of `mini` holds: loss recovered, labels, concepts, circles; beside PCA and an untrained mini.

    python benchmarks/features.py mini            # some minutes on one core
    python benchmarks/features.py stories FOLDER TEXTS --out DIR    # a dictionary and page of a small story model

Each line is a measurement; the last are JSON lines with all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
import sae
from interp.toys import language

SITE = "blocks.1.hook_resid_post"
K = 10
RECORDS: list[dict[str, Any]] = []


def tell(name: str, **numbers: Any) -> None:
    """One line, and kept for the end."""
    RECORDS.append({"name": name, **numbers})
    shown = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in numbers.items())  # fmt: skip
    print(f"{name}: {shown}", flush=True)


class Pca:
    """The k leading principal components as a coder."""

    def __init__(self, rows: torch.Tensor, k: int) -> None:
        self.d_in, self.mean = rows.shape[1], rows.double().mean(0)
        centred = rows.double() - self.mean
        self.basis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -k:]

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x.double() - self.mean) @ self.basis

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return (codes @ self.basis.T + self.mean).float()


def untrained(model: interp.Model, seed: int = 0) -> interp.Model:
    """The same network with the weights that training began from (another draw of them)."""
    module, generator = copy.deepcopy(model.module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim > 1:
                shrink = (2 * model.n_layers) ** -0.5 if "c_proj" in name else 1.0
                value.copy_(0.02 * shrink * torch.randn(value.shape, generator=generator))
            else:
                value.fill_(float(name.endswith("weight")))
    return interp.load(module)


def trained(
    model: interp.Model, tokens: interp.Tokens, *, d_sae: int, steps: int, seed: int = 0
) -> sae.Coder:
    rows = model.capture(tokens, SITE, batch_size=64).rows(SITE)
    config = sae.TrainConfig(d_sae=d_sae, k=K, steps=steps, batch_size=1024, seed=seed)
    return sae.train(rows, config, progress=False).coder


def judged(name: str, coder: sae.Coder, model: interp.Model, held: Any) -> sae.Codes:
    """Reconstruction, loss, and which latents tell which labels."""
    found = sae.evaluate(coder, held.tokens, model=model, site=SITE)
    r = found.recovered
    tell(f"{name}: SAE", fvu=float(found.value), l0=found.l0, dead=found.dead, ce_recovered=r["ce"],
         ce_against_zero=r["ce_against_zero"], kl_recovered=r["kl"], ce_clean=r["ce_clean"],
         ce_spliced=r["ce_spliced"], ce_mean=r["ce_mean"])  # fmt: skip
    codes = sae.encode(coder, model, held.tokens, SITE)
    table = sae.label_latents(codes, held.labels, names=language.LABELS)
    frame = table.to_frame()
    kinds = frame.concept.str.split(" = ").str[0]
    for kind, part in frame.groupby(kinds):
        best = part.iloc[0]
        tell(f"{name}: label {kind}", concepts=len(part), mean_auroc=float(part.auroc.mean()),
             least_auroc=float(part.auroc.min()), mean_precision=float(part.precision.mean()),
             best=f"{best.concept} latent {best.latent} ({best.auroc:.3f})")  # fmt: skip
    tell(f"{name}: all labels", concepts=len(frame), mean_auroc=float(frame.auroc.mean()),
         above_95=int((frame.auroc >= 0.95).sum()), latents_with_a_label=len(table.of_latents()))  # fmt: skip
    return codes


def concepts(name: str, coder: sae.Coder, model: interp.Model, codes: sae.Codes, held: Any) -> None:
    """k-sparse probes, absorption, targeted and spurious removal."""
    rows = model.capture(held.tokens, SITE, batch_size=64).rows(SITE)
    wanted = {"day": "any day", "agreement": "plural", "number": "plural", "mood": "positive"}
    for label, shown in wanted.items():
        values = held.labels[label]
        yes = (values >= 0).long() if label == "day" else torch.where(values < 0, -100, (values == 1).long())
        found = sae.sparse_probing(codes, yes, rows=rows, k=(1, 5, 20))
        tell(f"{name}: {label} = {shown}, {{1, 5, 20}} latents", accuracy=np.round(found.value, 3).tolist(),
             coordinates=found.coordinates.round(3).tolist(), whole_activation=found.whole)  # fmt: skip
    for pos in ("name", "calendar", "number"):
        yes = (held.labels["pos"] == list(language.LABELS["pos"]).index(pos)).long()
        found = sae.absorption(codes, coder, rows, yes)
        tell(f"{name}: absorption of pos = {pos}", rate=float(found.value), own_latents=len(found.main), f1=found.f1,
             silent=found.silent, probe=found.probe_accuracy)  # fmt: skip
    day = held.labels["day"][held.tokens.mask].numpy()
    found = sae.targeted_perturbation(coder, rows[day >= 0], day[day >= 0], n_latents=(1, 5, 20))
    tell(f"{name}: targeted perturbation of days", value=np.round(found.value, 3).tolist(),
         random=np.round(found.chance, 3).tolist())  # fmt: skip
    number, pos = (held.labels[x][held.tokens.mask].numpy() for x in ("number", "pos"))
    kept = (number >= 0) & np.isin(pos, [0, 2])
    found = sae.spurious_removal(
        coder, rows[kept], number[kept], (pos[kept] == 2).astype(int), n_latents=(1, 5, 20)
    )
    tell(f"{name}: removal of verb/noun from number", value=np.round(found.value, 3).tolist(),
         random=np.round(found.chance, 3).tolist(), biased=found.biased, oracle=found.oracle,
         one_direction=found.direction)  # fmt: skip


def circles(name: str, model: interp.Model, held: Any) -> None:
    """Days and months at three sites, and turning them."""
    for unit in ("day", "month"):
        labels = held.labels[unit]
        for site in ("hook_embed", "blocks.0.hook_resid_post", SITE):
            rows = model.capture(held.tokens, site, batch_size=64)[site][labels >= 0].float()
            found = sae.circle_test(rows, labels[labels >= 0])
            tell(f"{name}: {unit}s at {site}", share=float(found.value), chance=float(np.asarray(found.chance)),
                 p=found.p, orderings=found.orderings, roundness=found.roundness, in_order=found.in_order,
                 found=found.found, spectrum=found.spectrum.round(3).tolist())  # fmt: skip


def turning(model: interp.Model, held: Any, n: int = 200) -> None:
    """Does the answer of a calendar sentence follow the turn of its day or month?"""
    pairs, vocabulary = language.prompt_pairs("calendar", n=n, split="train"), list(language.vocabulary())
    for unit in ("day", "month"):
        names = list(language.LABELS[unit])
        mine = [p for p in pairs if p.facts["unit"] == unit]
        tokens = model.tokens([" ".join(p.clean) for p in mine])
        words = torch.tensor([vocabulary.index(w) for w in names])
        at = torch.isin(tokens.ids, words) & tokens.mask
        positions = at.long().argmax(1)
        base = torch.tensor(
            [names.index(vocabulary[int(i)]) for i in tokens.ids[torch.arange(len(mine)), positions]]
        )
        answers = torch.tensor([names.index(p.answers[0]) for p in mine])
        labels = held.labels[unit]
        for site in ("hook_embed", "blocks.0.hook_resid_post"):
            rows = model.capture(held.tokens, site, batch_size=64)[site][labels >= 0].float()
            every = [
                sae.circle_test(rows, labels[labels >= 0], frequency=f) for f in range(1, len(names) // 2 + 1)
            ]
            # the strongest modes together, until they hold nearly all of the variance of the means
            strong = sorted(every, key=lambda c: -c.fitted)
            for circles in (strong[:1], strong[:2], strong):
                found = sae.rotation_test(model, tokens, site, circles, positions=positions, base=base, answers=answers,
                                          words=words, shifts=(1, 2, 3), n_random=2)  # fmt: skip
                tell(f"mini: {unit} turned at {site}", frequencies=found.provenance["frequencies"], n=found.n,
                     follows=np.round(found.value, 3).tolist(), kept=found.kept.round(3).tolist(),
                     random_planes=found.random.round(3).tolist(), whole_mean_swapped=found.swapped.round(3).tolist(),
                     unedited=found.plain)  # fmt: skip


def planes(name: str, coder: sae.Coder, codes: sae.Codes, held: Any) -> None:
    """Groups of latents by direction, and whether what they write of days and months is a circle."""
    groups = sae.latent_groups(coder, codes, least=0.5)
    tell(f"{name}: groups of latents", groups=len(groups), largest=[len(g) for g in groups[:8]])
    for unit in ("day", "month"):
        values = codes.of_texts(held.labels[unit])
        table = sae.label_latents(codes, {unit: held.labels[unit]}, least=8)
        special = np.unique(table.latent)  # the best sign of each
        rows, made = sae.written_by(coder, codes, special)
        kept = values[rows] >= 0
        n = len(language.LABELS[unit])
        try:
            found = sae.circle_test(made[kept].float(), torch.as_tensor(values[rows][kept]), n_classes=n)
        except interp.InputError as why:
            tell(f"{name}: what {len(special)} latents of {unit}s write", refused=str(why))
            continue
        tell(f"{name}: what {len(special)} latents of {unit}s write", share=float(found.value),
             chance=float(np.asarray(found.chance)), p=found.p, round=found.roundness, found=found.found)  # fmt: skip


def mini(args: argparse.Namespace) -> None:
    model, own = interp.load("mini"), interp.toys.embedded("mini")
    learn, held = own.sample(args.tokens), own.sample(args.tokens // 3, seed=1)
    began = time.process_time()
    coder = trained(model, learn.tokens, d_sae=args.d_sae, steps=args.steps)
    tell("training", cpu_seconds=time.process_time() - began, d_sae=args.d_sae, steps=args.steps)
    codes = judged("mini", coder, model, held)
    rows = model.capture(learn.tokens, SITE, batch_size=64).rows(SITE)
    pca = sae.loss_recovered(Pca(rows, K), model, held.tokens, SITE)
    tell(f"mini: PCA, {K} components", ce_recovered=float(pca.value), kl_recovered=pca.kl)
    concepts("mini", coder, model, codes, held)
    circles("mini", model, held)
    turning(model, held)
    planes("mini", coder, codes, held)
    blank = untrained(model)
    other = trained(blank, learn.tokens, d_sae=args.d_sae, steps=args.steps)
    codes = judged("untrained", other, blank, held)
    circles("untrained", blank, held)
    planes("untrained", other, codes, held)
    again = trained(model, learn.tokens, d_sae=args.d_sae, steps=args.steps, seed=1)
    found = sae.compare(coder, again, rows[:20_000])
    tell("two seeds", cosine=float(found.value), chance=float(np.asarray(found.chance)), shared=found.shared,
         code_correlation=float(found.correlation.mean()))  # fmt: skip


def stories(args: argparse.Namespace) -> None:
    from interp.stores.texts import read_texts

    model = interp.load(args.folder)
    texts = list(read_texts(args.texts))
    cut = len(texts) * 9 // 10
    site = f"blocks.{(model.n_layers - 1) // 2}.hook_resid_post"
    began = time.process_time()
    data = sae.model_rows(model, texts[:cut], site, batch=8, include_first=True)
    rows = torch.cat([chunk for chunk in data if isinstance(chunk, torch.Tensor)])
    config = sae.TrainConfig(d_sae=args.d_sae, k=K, steps=args.steps, batch_size=1024)
    run = sae.train(rows, config, args.out / "run", resume=True)
    tell("stories: training", cpu_seconds=time.process_time() - began, tokens=len(rows), site=site)
    found = sae.evaluate(run.coder, texts[cut:], model=model, site=site, reference=rows)
    tell("stories: SAE", n=found.n, fvu=float(found.value), l0=found.l0, dead=found.dead,
         ce_recovered=found.recovered["ce"], ce_clean=found.recovered["ce_clean"],
         ce_spliced=found.recovered["ce_spliced"])  # fmt: skip
    pca = sae.loss_recovered(Pca(rows, K), model, texts[cut:], site)
    tell(f"stories: PCA, {K} components", ce_recovered=float(pca.value))
    began = time.process_time()
    codes = sae.encode(run.coder, model, texts, site)
    order = np.argsort(-codes.strongest * (codes.density < 0.05))[:4]
    page = sae.dashboard(
        run.coder, model, texts, site, out=args.out / "features.html", causal=[int(j) for j in order]
    )
    tell(
        "stories: page",
        cpu_seconds=time.process_time() - began,
        html=str(page.html),
        megabytes=page.n_bytes / 1e6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="what", required=True)
    one = parts.add_parser("mini")
    one.add_argument("--tokens", type=int, default=240_000)
    two = parts.add_parser("stories")
    two.add_argument("folder")
    two.add_argument("texts", type=Path)
    two.add_argument("--out", type=Path, required=True)
    for part in (one, two):
        part.add_argument("--d-sae", type=int, default=1024)
        part.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"mini": mini, "stories": stories}[args.what](args)
    for record in RECORDS:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
