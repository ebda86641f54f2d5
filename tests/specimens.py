"""One small instance of every class that a public function hands out, its texts hostile wherever it takes texts.

``tests/public.py`` finds which classes these are, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import circuits
import interp
import probes
import sae
from interp.results import Result
from tests.hostile import HOSTILE, SILENT

__all__ = ["EXEMPT", "made", "specimens"]


def tokens() -> interp.Tokens:
    return interp.Tokens.of([list(range(len(HOSTILE))), [1, 2, 3]], show=lambda i: HOSTILE[i % len(HOSTILE)])


@cache
def network() -> Any:
    model = interp.load("induction")
    model.name = SILENT
    return model


@cache
def task() -> Any:
    from interp.tasks.pairs import Pair

    pair = Pair(
        clean=(0, 1, 2, 3),
        corrupted=(0, 2, 2, 3),
        answers=(3,),
        wrong=(4,),
        facts={"x": SILENT},
        texts=(SILENT, HOSTILE[0]),
    )
    return interp.tasks.Task.of(
        [pair] * 3, name=SILENT, measure="logit_difference", show=lambda i: HOSTILE[i % len(HOSTILE)]
    )


@cache
def graph() -> Any:
    found = circuits.attribute(network(), task(), method="eap").top(3)
    return dataclasses.replace(found, method=SILENT, convention=SILENT, provenance={"model": SILENT})


@cache
def coder() -> Any:
    return sae.Coder(8, 16, 2, seed=0)


@cache
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 5)), np.arange(40) % 2


def store(folder: Path) -> Any:
    ids = torch.randint(1, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    return interp.harvest(
        interp.load("induction"), ids, "blocks.0.hook_resid_post", folder / "acts", progress=False
    )


def _run() -> Any:
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    config = sae.TrainConfig(d_sae=16, k=2, steps=4, batch_size=16, seed=0)
    return dataclasses.replace(
        sae.train(x, config, progress=False), provenance={"x": SILENT}, advice=(SILENT,)
    )


def _comparison(folder: Path) -> Any:
    from types import SimpleNamespace

    from interp.study.comparing import Comparison

    one = object.__new__(Comparison)
    side = SimpleNamespace(name=SILENT)
    given = {"a": side, "b": side, "hurdles": (), "rows": (), "similarity": None, "shuffled": None}
    for name, value in (given | {"html": folder / "gone.html", "json": folder / "x.json"}).items():
        object.__setattr__(one, name, value)
    return one


def _page(folder: Path) -> Path:
    return interp.views.colored_tokens([SILENT], [1.0]).save(folder / "page.html")


def _sweeps() -> Any:
    from probes.sweep_result import SweepResult, Sweeps

    ones = np.ones((2, 1))
    one = SweepResult(
        name=SILENT, value=ones[:, 0], n=3, convention=SILENT, axes=("site",), ticks=((SILENT, HOSTILE[20]),),
        chance=0.5, accuracy=ones, shuffled=ones[:, 0], shuffled_interval=np.ones((2, 2)), classes=(0, 1),
        n_groups=2, n_train=2, n_test=1, converged=1.0,
    )  # fmt: skip
    return Sweeps({SILENT: one})


def _progress() -> Any:
    from circuits.groups.dynamics import Progress

    measures: dict[str, tuple[float, ...]] = dict.fromkeys(
        ("train_loss", "test_loss", "excluded", "restricted"), (1.0, 0.5)
    )
    return Progress(
        run=SILENT, epochs=(0, 10), irreps=("trivial", SILENT), key=(SILENT,), similarity=torch.rand(2, 2).double(),
        measures=measures, phase=SILENT,
    )  # fmt: skip


def _group_run() -> Any:
    from interp.toys.training_runs import CURVE, GroupRun

    card = {"curve": [tuple(range(len(CURVE)))], "n_train": 3, "n_test": 4, "word": SILENT, "seed": 0}
    return GroupRun(
        module=interp.load("group:S4").module, card=card, checkpoints=(), group=interp.toys.Group("S3")
    )


def _codes() -> Any:
    return sae.Codes(
        starts=np.array([0, 2, 2, 3]), rows=np.array([0, 3, 1], dtype=np.int32), n=4, tokens=tokens(),
        values=np.array([0.5, 1.0, 2.0], dtype=np.float32),
        where=np.array([[0, 20], [0, 21], [1, 0], [1, 1]], np.int32),
    )  # fmt: skip


def _label_table() -> Any:
    from sae.labels import LabelTable

    two, many = np.ones(2), np.ones(40)
    return LabelTable(
        name=SILENT, value=two, n=3, convention=SILENT, axes=("concept",), ticks=((SILENT, HOSTILE[20]),), latent=two,
        precision=two, recall=two, positives=two, choice=many, check=many, concept=many, concept_auroc=many,
        concept_precision=many, concept_recall=many,
    )  # fmt: skip


def _faithful() -> Any:
    return made(circuits.Faithfulness, 1)


def made(kind: type[Result], n_axes: int) -> Result:
    """A Result of any kind with hostile texts: its own fields are filled by what their annotations say."""
    sizes = (2, 3)[:n_axes]
    common: dict[str, Any] = {
        "name": SILENT, "value": np.arange(6.0)[: int(np.prod(sizes))].reshape(sizes) if sizes else 0.5, "n": 7,
        "convention": SILENT, "axes": ("site", HOSTILE[20])[:n_axes], "reason": HOSTILE[19],
        "ticks": tuple(tuple(HOSTILE[i : i + size]) for i, size in enumerate(sizes)), "provenance": {SILENT: SILENT},
    }  # fmt: skip
    for one in dataclasses.fields(kind):
        needed = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if one.name not in common and (needed or str(one.type).startswith(("dict", "Mapping"))):
            common[one.name] = _filled(str(one.type))
    one = object.__new__(kind)  # past the check of shapes: the fields are only looked at
    for field in dataclasses.fields(kind):
        absent = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        object.__setattr__(one, field.name, common.get(field.name, absent))
    return one


def _filled(annotation: str) -> Any:
    """Something of an annotated kind that would fill a screen if it were printed."""
    if annotation.startswith(("np.ndarray", "Float", "Int", "Bool")):
        return np.arange(4000.0).reshape(40, 100)
    if annotation.startswith(("tuple", "Sequence", "list")):
        return tuple(HOSTILE) * 3
    if annotation.startswith(("Mapping", "dict")):
        return dict.fromkeys((*HOSTILE, "explained", "residual", "all"), 1.0)
    return {"str": SILENT, "int": 3, "bool": True, "float": 0.5}.get(annotation.split(" |")[0].split("[")[0])


def specimens() -> dict[str, Callable[[Path], Any]]:
    """Class name -> how to make one, given a folder."""
    from circuits.autoencoder import DiscreteCoder
    from circuits.features.neurons import Neurons
    from circuits.groups.cosets import CosetReading
    from circuits.groups.triples import word_triples
    from circuits.layout import Layout
    from circuits.telling.checking import Difference, Verdict
    from circuits.telling.reporting import CircuitReport
    from interp.frames import Frame, Inputs
    from interp.lenses.readout import Readout
    from interp.lenses.tuned import Translators
    from interp.moments.accumulator import SiteMoments
    from interp.study.analysis import Analysis
    from interp.study.stations import Section
    from interp.tasks.published import Reference
    from interp.toys.planted_graph import Edge
    from interp.toys.repeats import HeadScores
    from probes.closed import Path as Solutions
    from sae.gallery.dashboarding import Dashboard

    x, z = rows()
    site = "blocks.0.hook_resid_post"
    ids = torch.arange(12)[None]
    grid = torch.rand(2, 3)
    group = interp.toys.Group("S3")
    counts = torch.ones(4, dtype=torch.int64)
    missing = Difference(field=SILENT, said=SILENT, found=HOSTILE[20])
    shape = network().module.shape

    def capture() -> Any:
        acts = network().capture(ids, "blocks.*.hook_resid_post")
        return dataclasses.replace(acts, provenance={"text": SILENT})

    def moments() -> Any:
        return interp.Moments.of({SILENT: x})

    return {
        "Activations": lambda _: capture(),
        "ActivationStore": store,
        "Analysis": lambda folder: Analysis(
            html=folder / "gone.html", json=folder / "x.json", sections=({"name": SILENT, "status": SILENT},)
        ),
        "Anatomy": lambda _: network().anatomy,
        "AttentionView": lambda _: interp.views.attention_patterns(np.ones((1, 2, 2)), [SILENT, HOSTILE[20]]),
        "AuditResult": lambda _: interp.load("induction").audit(tokens=ids, sites=[site]),
        "BenchSAE": lambda _: sae.saebench(coder(), model_name=SILENT, site=site),
        "CircuitReport": lambda folder: CircuitReport(
            html=_page(folder),
            json=folder / "x.json",
            record={"title": SILENT},
            graph=graph(),
            faithfulness=_faithful(),
        ),
        "Coder": lambda _: coder(),
        "Codes": lambda _: _codes(),
        "Comparison": _comparison,
        "CosetReading": lambda _: CosetReading(
            subgroup=counts,
            order=counts,
            explained=counts.double(),
            best=counts.double(),
            null=counts.double(),
        ),
        "Dashboard": lambda folder: Dashboard(
            html=_page(folder), json=None, n_latents=1, n_tokens=2, n_bytes=3, seconds=0.1
        ),
        "DiscreteCoder": lambda _: DiscreteCoder(90, 200, generator=torch.Generator().manual_seed(0)),
        "Edge": lambda _: Edge("input", "a0.h1", "q"),
        "Edit": lambda _: interp.scale(site, 2.0),
        "Embedded": lambda _: interp.toys.embedded("induction"),
        "Eraser": lambda _: probes.leace(x, z),
        "Explanation": lambda _: sae.Explanation(latent=3, text=SILENT, scores={SILENT: 0.5}),
        "Frame": lambda _: Frame(batch=2, mask=torch.ones(200, 300, dtype=torch.bool)),
        "Graph": lambda _: graph(),
        "Group": lambda _: group,
        "GroupRun": lambda _: _group_run(),
        "HeadScores": lambda _: HeadScores(previous=grid, induction=grid, duplicate=grid, first=grid, n=3),
        "InductionRecipe": lambda _: interp.toys.InductionRecipe(),
        "Inputs": lambda _: Inputs(args=(torch.ones(200, 200),)),
        "Irrep": lambda _: group.irreps()[0],
        "LabelTable": lambda _: _label_table(),
        "Layout": lambda _: Layout.of(network().anatomy),
        "MiniRecipe": lambda _: interp.toys.MiniRecipe(),
        "Model": lambda _: network(),
        "ModelRows": lambda _: sae.model_rows(network(), ids, site, batch=1),
        "Moments": lambda _: moments(),
        "Neurons": lambda _: Neurons(),
        "OracleEraser": lambda _: probes.oracle_leace(x, z),
        "Path": lambda _: Solutions(n=40, values=np.ones(500), vectors=np.ones((500, 500))),
        "PerceptronShape": lambda _: interp.toys.PerceptronShape(order=5),
        "Planted": lambda _: interp.toys.planted("backup"),
        "PlantedGraph": lambda _: interp.toys.planted("backup").graph,
        "ProbeDirection": lambda _: probes.direction(probes.LDAProbe().fit(x, z), site),
        "Progress": lambda _: _progress(),
        "Proof": lambda _: group.verify(),
        "QuadraticEraser": lambda _: probes.quadratic_leace(x, z),
        "Readout": lambda _: Readout(norm=None, unembed=torch.nn.Linear(400, 400)),
        "Recipe": lambda _: interp.toys.Recipe(),
        "Reference": lambda _: Reference(
            task=SILENT,
            version=SILENT,
            model=SILENT,
            source=SILENT,
            note=SILENT,
            n_layers=1,
            n_heads=1,
            has_mlps=False,
            roles={SILENT: ("a0.h0",)},
            groups=(),
            edges=("input->a0.h0<q>",),
        ),  # fmt: skip
        "RowBatch": lambda folder: store(folder).batch([0, 1]),
        "Rule": lambda _: coder().rule,
        "Run": lambda _: _run(),
        "Sample": lambda _: interp.toys.embedded("induction").sample(100),
        "Section": lambda _: Section(name=SILENT, title=SILENT, summary=SILENT),
        "Shape": lambda _: shape,
        "SiteMoments": lambda _: SiteMoments(moments(), SILENT),
        "StructuralProbe": lambda _: probes.StructuralProbe(rank=2),
        "Subgroup": lambda _: group.subgroups()[0],
        "Subject": lambda _: circuits.groups.subject_of(interp.load("group:S4"), interp.toys.Group("S4")),
        "Sums": lambda _: moments().sums,
        "SuperpositionRecipe": lambda _: interp.toys.SuperpositionRecipe(),
        "Sweeps": lambda _: _sweeps(),
        "Task": lambda _: task(),
        "Through": lambda _: sae.Through(network(), ids, site, batch=1),
        "TokenView": lambda _: interp.views.colored_tokens(list(HOSTILE), {SILENT: np.ones(len(HOSTILE))}),
        "Tokens": lambda _: tokens(),
        "TrainConfig": lambda _: sae.TrainConfig(d_sae=16, k=2),
        "Translators": lambda _: Translators(
            (SILENT,), torch.zeros(1, 90, 90), torch.zeros(1, 90), card={SILENT: SILENT}
        ),
        "Triples": lambda _: word_triples(group),
        "Verdict": lambda _: Verdict(title=SILENT, differences=(missing,), checked=(SILENT,)),
        "Wiring": lambda _: interp.toys.Wiring({SILENT: 4}, d_vocab=5, n_ctx=4),
    }


EXEMPT = {
    "Site": "is its own name",
    "Perceptron": "a torch module says its layers", "Superposition": "likewise", "Transformer": "likewise",
    "LDAProbe": "scikit-learn draws its estimators", "LogisticProbe": "likewise", "MassMeanProbe": "likewise",
    "MultiTaskProbe": "likewise", "RidgeProbe": "likewise", "RidgeRegressor": "likewise",
    "View": "abstract", "Watcher": "a callback",
}  # fmt: skip
"""Classes that show themselves in another way."""
