"""The probe station: the study's labels, or the previous token where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import interp
from interp.study.effort import DEEP, QUICK
from interp.study.stations import Station, Study
from interp.tokens import Tokens
from interp.toys import Shape, Transformer
from probes.generic import generic_labels
from probes.station import STATION, _finding
from probes.sweeping import sweep


def study(tmp_path: Path, *, ids: torch.Tensor | None = None, **labels: torch.Tensor) -> Study:
    module = Transformer(
        Shape(d_vocab=8, n_ctx=16, n_layers=3, d_model=16, n_heads=2, d_mlp=16),
        generator=torch.Generator().manual_seed(0),
    )
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1)) if ids is None else ids
    return Study(model=interp.load(module), tokens=Tokens.full(ids), out=tmp_path, labels=labels)


def test_it_is_a_station() -> None:
    assert isinstance(STATION, Station)
    assert STATION.order == 20


def test_given_labels_are_probed_at_every_layer(tmp_path: Path) -> None:
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1))
    given = study(
        tmp_path,
        ids=ids,
        half=(ids > 3).long(),
        noise=torch.randint(2, ids.shape, generator=torch.Generator().manual_seed(2)),
    )
    assert STATION.applies(given) is None
    assert STATION.estimate(given).seconds > 0
    section = STATION.run(given)
    json.dumps(section.numbers, allow_nan=False)
    assert set(section.numbers) == {"half", "noise"}
    assert (
        max(section.numbers["half"]["accuracy"]) > 0.95
    )  # which half the token is in: written by the embedding
    assert max(section.numbers["noise"]["accuracy"]) < 0.65
    assert "Noise (2 classes) is not read above chance" in section.summary
    assert len(section.plates) == len(section.tables) == 2


def test_a_probe_no_better_than_its_control_is_said_to_be(tmp_path: Path) -> None:
    # every type has one label: what the embedding writes solves the control task as well as the label
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1))
    section = STATION.run(study(tmp_path, ids=ids, half=(ids > 3).long()))
    assert "no better than the control" in section.summary
    assert f"n = {section.numbers['half']['n_test']} tokens a split" in section.summary
    low, high = section.numbers["half"]["interval"][0]
    assert low < high
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    rows = {"a": np.stack([y, *rng.normal(size=(3, 600))], 1)}  # the label is there, the types are not
    result = sweep(rows, y, ["a"], groups=np.arange(600) // 10, types=rng.integers(50, size=600))
    assert "no better than the control" not in _finding("label", result)


def test_without_labels_it_asks_for_the_previous_token_and_says_so(tmp_path: Path) -> None:
    section = STATION.run(study(tmp_path))
    numbers = section.numbers["previous token"]
    assert len(numbers["classes"]) == 6
    assert "No labels were given" in section.caveats[0]
    # independent random tokens: the stream before any attention cannot know the previous one
    assert numbers["accuracy"][0] < numbers["majority"] + 0.1


def test_a_label_that_cannot_be_probed_does_not_hide_the_others(tmp_path: Path) -> None:
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1))
    once = torch.full_like(ids, -100)
    once[0, 1:5] = torch.tensor([0, 1, 0, 1])
    section = STATION.run(study(tmp_path, ids=ids, half=(ids > 3).long(), once=once))
    assert set(section.numbers) == {"half"}
    assert any("'once' was not probed" in caveat for caveat in section.caveats)


def test_it_declines_what_cannot_be_split_or_asked(tmp_path: Path) -> None:
    few = study(tmp_path, ids=torch.zeros(2, 9, dtype=torch.long))
    assert "cannot be split" in str(STATION.applies(few))
    flat = study(tmp_path, ids=torch.zeros(20, 9, dtype=torch.long))
    assert "no labels were given" in str(STATION.applies(flat))


def test_in_full_a_label_that_decides_the_answer_is_used_and_noise_is_not_encoded(tmp_path: Path) -> None:
    """The network repeats the token it sees, whose half is one coordinate: erasing it must cost; noise is not there."""
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1))
    noise = torch.randint(2, ids.shape, generator=torch.Generator().manual_seed(2))
    given = study(tmp_path, ids=ids, half=(ids > 3).long(), noise=noise)
    with torch.no_grad():
        module = given.model.module
        code = torch.zeros(8, 16)
        code[torch.arange(8), 1 + torch.arange(8) % 4] = 2.0
        code[:, 0] = torch.where(torch.arange(8) > 3, 2.0, -2.0)
        module.embed.weight.copy_(code)
        module.unembed.weight.copy_(code)
        for block in module.blocks:
            block.attn.o.weight.zero_()
            block.mlp.down.weight.zero_()
    section = STATION.run(replace(given, effort=DEEP, labels={**given.labels, "answer": ids}))
    found = section.numbers["verdicts"]
    assert found["half"]["verdict"] == "encoded and used"
    assert found["half"]["loss_rise_nats"] > max(found["half"]["controls_nats"])
    assert found["noise"]["verdict"] == "not encoded"
    json.dumps(section.numbers, allow_nan=False)
    assert section.tables[0].anchor == "verdicts"
    shown = {f.name: f.remark for f in section.findings if f.shown}
    assert shown["half"] == "encoded and used"
    assert all(b.vectors.shape[1] == 16 for b in section.bearings)


def test_without_labels_the_full_form_asks_for_more_than_the_previous_token(tmp_path: Path) -> None:
    given = study(tmp_path)
    assert list(generic_labels(given)) == ["previous token"]
    grids = generic_labels(given, every=True)
    assert list(grids) == ["previous token", "current token", "next token", "third of the text"]
    ids, current, following = given.tokens.ids, grids["current token"], grids["next token"]
    known = current >= 0
    assert len(ids[known].unique()) == len(current[known].unique()) == 6
    for label in range(6):
        assert len(ids[:, 1:][following[:, :-1] == label].unique()) == 1
    assert (following[:, -1] == -100).all()
    assert grids["third of the text"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_quick_look_fits_one_split(tmp_path: Path) -> None:
    ids = torch.randint(8, (60, 10), generator=torch.Generator().manual_seed(1))
    section = STATION.run(replace(study(tmp_path, ids=ids, half=(ids > 3).long()), effort=QUICK))
    assert np.shape(section.numbers["half"]["by_seed"])[1] == 1
