"""The circuit station: a made-up task, a map of parts, a ladder that must end at everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interp
from circuits import station as module_under_test
from circuits.contexts import Pairs, make_pairs
from circuits.effects import PatchResult
from circuits.full_form import able, written
from circuits.station import STATION
from interp.errors import CheckError
from interp.metrics.baselines import random_init
from interp.study.effort import DEEP
from interp.study.stations import Station, Study
from interp.tokens import Tokens
from interp.toys import Shape, Transformer, planted


class Pair(nn.Module):
    """Two inputs, one answer an input: no heads, no positions in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Embedding(12, 6), nn.Embedding(12, 6)
        self.hidden, self.out = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.cat([self.left(ids[:, 0]), self.right(ids[:, 1])], -1))))


def study(tmp_path: Path, *, module: Any = None, length: int = 7, d_vocab: int = 11) -> Study:
    if module is None:
        shape = Shape(d_vocab=11, n_ctx=16, n_layers=2, d_model=16, n_heads=4, d_mlp=32)
        module = Transformer(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            module.unembed.weight.mul_(4)  # sharp enough predictions that a swapped context matters
    ids = torch.randint(d_vocab, (40, length), generator=torch.Generator().manual_seed(1))
    return Study(model=interp.load(module), tokens=Tokens.full(ids), out=tmp_path)


def test_it_is_a_station() -> None:
    assert isinstance(STATION, Station)
    assert STATION.order == 40


def test_the_corrupted_prompts_keep_their_last_token_and_nothing_else(tmp_path: Path) -> None:
    pairs = make_pairs(study(tmp_path))
    clean, corrupted = pairs.clean.ids, pairs.corrupted.ids
    assert torch.equal(clean[:, -1], corrupted[:, -1])
    assert torch.equal(clean.roll(1, 0)[:, :-1], corrupted[:, :-1])
    logits = torch.randn(len(clean), clean.shape[1], 11, generator=torch.Generator().manual_seed(0))
    expected = [float(logits[i, -1].double().log_softmax(-1)[pairs.answers[i, 0]]) for i in range(len(clean))]
    np.testing.assert_allclose(pairs.metric(logits), expected, rtol=1e-12)


def test_a_section_maps_the_heads_and_climbs_the_ladder(tmp_path: Path) -> None:
    given = study(tmp_path)
    assert STATION.applies(given) is None
    assert STATION.estimate(given).forward_passes > 0
    section = STATION.run(given)
    json.dumps(section.numbers, allow_nan=False)
    effects, ladder = section.numbers["effects"], section.numbers["residual_ladder"]
    assert len(effects["effect"]) == len(effects["control"]) == 8
    assert ladder["effect"][0] == pytest.approx(0, abs=1e-3)
    assert ladder["effect"][-1] == pytest.approx(1, abs=1e-3)
    assert [plate.title for plate in section.plates] == [
        "Effect of patching single heads",
        "Where the answer has arrived",
    ]
    assert section.numbers["task"]["gap_nats"] > 0


def test_a_network_of_plain_modules_is_mapped_part_by_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = study(tmp_path, module=Pair(), length=2, d_vocab=12)
    section = STATION.run(given)
    effects = dict(
        zip(section.numbers["effects"]["parts"], section.numbers["effects"]["effect"], strict=True)
    )
    assert effects["hidden"] == pytest.approx(1, abs=1e-3)
    assert effects["left"] != pytest.approx(1, abs=0.05)
    assert section.numbers["residual_ladder"] is None
    assert section.numbers["task"]["last_token_kept"] is False


def test_a_model_that_does_not_look_at_its_context_has_nothing_to_share_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11))
    section = STATION.run(study(tmp_path, module=module))
    assert "nothing to share out" in section.summary
    assert section.plates == section.tables == ()
    json.dumps(section.numbers, allow_nan=False)


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_heads_that_carry_nothing_get_no_shares_and_no_winner(tmp_path: Path, noise: float) -> None:
    """Attention that writes nothing, or next to nothing: what is left of the swap is the rounding."""
    shape = Shape(d_vocab=11, n_ctx=16, n_layers=2, d_model=16, n_heads=4, d_mlp=32)
    module = Transformer(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in module.blocks:
            block.attn.o.weight.mul_(noise)
    section = STATION.run(study(tmp_path, module=module))
    assert "no measurable difference" in section.summary
    assert "the most of" not in section.summary
    assert section.plates == section.tables == ()
    assert section.numbers["effects"]["effect"] is None
    assert not any("winner" in caveat for caveat in section.caveats)
    json.dumps(section.numbers, allow_nan=False)


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[PatchResult], PatchResult]) -> None:
    """The sweep over heads gives what ``change`` makes of it."""
    honest = module_under_test.patch_sweep

    def sweep(*args: Any, **options: Any) -> object:
        result = honest(*args, **options)
        return change(result) if options.get("control") else result

    monkeypatch.setattr(module_under_test, "patch_sweep", sweep)


def test_a_cost_whose_interval_includes_0_is_not_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(result: PatchResult) -> PatchResult:
        sign = np.where(np.arange(result.n) % 2, 1.0, -1.0)
        return replace(result, clean=result.corrupted + sign + 0.01)

    changed(monkeypatch, noisy)
    section = STATION.run(study(tmp_path))
    assert "no measurable difference" in section.summary
    assert section.plates == section.tables == ()


def test_a_best_head_whose_interval_includes_0_is_no_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = STATION.run(study(tmp_path))
    assert "the most of 8 heads" in plain.summary
    assert "chance gives about 0.2" in plain.summary
    assert any("largest of 8" in c and "percentile bootstrap" in c for c in plain.caveats)
    assert not any("bidirectional" in c for c in plain.caveats)

    def wide(result: PatchResult) -> PatchResult:
        assert result.interval is not None
        return replace(result, interval=result.interval - [[2.0, 0.0]])

    changed(monkeypatch, wide)
    summary = STATION.run(study(tmp_path)).summary
    assert "none of 8 heads, put back alone, returns a share that can be told from 0" in summary
    assert "hook_z" not in summary


def test_a_bidirectional_model_is_said_to_read_the_very_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interp.Model, "causal", property(lambda self: False))
    caveats = STATION.run(study(tmp_path)).caveats
    assert any("bidirectional" in caveat and "nothing is masked" in caveat for caveat in caveats)


def test_a_ladder_that_does_not_end_at_the_clean_answer_stops_the_station(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module_under_test.patch_sweep

    def crooked(*args: Any, **options: Any) -> object:
        result = honest(*args, **options)
        result.patched[-1] += 0.5
        return result

    monkeypatch.setattr(module_under_test, "patch_sweep", crooked)
    with pytest.raises(CheckError, match="should give the clean answer back"):
        STATION.run(study(tmp_path))


def test_it_declines_single_tokens_few_prompts_and_models_of_one_part(tmp_path: Path) -> None:
    assert "one token long" in str(STATION.applies(study(tmp_path, length=1)))
    few = study(tmp_path)
    few = Study(model=few.model, tokens=few.tokens[:3], out=tmp_path)
    assert "too few to pair up" in str(STATION.applies(few))
    one = study(tmp_path, module=nn.Sequential(nn.Embedding(11, 11)))
    assert "this one offers 1" in str(STATION.applies(one))


def test_a_known_task_is_asked_instead_of_a_made_up_one(tmp_path: Path) -> None:
    circuit = planted("two-hop")
    task = circuit.task(40, seed=0)
    given = Study(model=interp.load(circuit.module), tokens=task.clean, task=task, out=tmp_path)
    section = STATION.run(given)
    assert section.numbers["task"]["name"] == "planted:two-hop"
    assert "the right answer (planted:two-hop)" in section.summary
    assert not any("No task was given" in caveat for caveat in section.caveats)


def test_of_several_right_answers_the_probability_of_any_counts() -> None:
    tokens = Tokens.full(torch.tensor([[1, 2], [1, 3]]))
    answers = torch.tensor([[0, 3], [2, -1]])
    pairs = Pairs(clean=tokens, corrupted=tokens, answers=answers, per_position=True)
    logits = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    p = logits[:, -1].double().softmax(-1)
    torch.testing.assert_close(pairs.metric(logits), torch.stack([(p[0, 0] + p[0, 3]).log(), p[1, 2].log()]))


def test_in_full_a_planted_circuit_is_found_told_on_its_page_and_handed_to_the_index(tmp_path: Path) -> None:
    circuit = planted("two-hop")
    task = circuit.task(24, seed=0)
    (tmp_path / "stations" / "circuit").mkdir(parents=True)
    given = Study(
        model=interp.load(circuit.module), tokens=task.clean, task=task, out=tmp_path / "stations" / "circuit",
        effort=DEEP,
    )  # fmt: skip
    section = STATION.run(given)
    json.dumps(section.numbers, allow_nan=False)
    found = section.numbers["circuits"]["planted:two-hop"]
    assert found["faithfulness"] >= 0.9
    assert found["edges"] < found["of"] / 4
    assert section.leaves[0].path.is_file()
    parts = [f for f in section.findings if f.kind == "circuit" and f.site]
    assert {f.name for f in parts} == set(found["parts"])
    heads = [f for f in parts if f.name.startswith("a")]
    anchors = {plate.anchor for plate in section.plates}
    assert heads
    assert all(
        f.href.removeprefix("#") in anchors or f.href == "stations/circuit/circuit.html" for f in heads
    )
    assert "faithfulness" in anchors
    assert all(b.written and b.vectors.shape == (1, given.model.d_model) for b in section.bearings)


def test_in_full_a_model_without_any_task_says_why_there_is_no_circuit(tmp_path: Path) -> None:
    section = STATION.run(replace(study(tmp_path), effort=DEEP))
    assert not section.leaves
    assert any("No circuit was looked for: no task" in caveat for caveat in section.caveats)
    assert "effects" in section.numbers


def test_a_part_whose_writing_cannot_be_read_is_named(tmp_path: Path) -> None:
    circuit = planted("two-hop")
    task = circuit.task(24, seed=0)
    given = Study(model=interp.load(circuit.module), tokens=task.clean, task=task, out=tmp_path)
    found, caveats = written(given, task, {"a1.h0": 1.0, "m9": 0.5}, set())
    assert [b.names for b in found] == [("a1.h0",)]
    assert len(caveats) == 1
    assert "m9 (" in caveats[0]


def test_a_task_that_the_model_cannot_do_is_not_asked() -> None:
    circuit = planted("two-hop")
    task = circuit.task(24, seed=0)
    assert able(interp.load(circuit.module), task) == ""
    untrained = random_init(interp.load(circuit.module), seed=0)
    assert "not clearly above 0" in able(untrained, task)


def test_the_algorithm_of_a_group_network_leads_its_section(tmp_path: Path) -> None:
    made = interp.toys.embedded("group:S4")
    sample = made.sample(300)
    given = Study(
        model=interp.load("group:S4"), tokens=sample.tokens, labels=sample.labels, task=made.task(64), out=tmp_path,
        name="group:S4",
    )  # fmt: skip
    section = STATION.run(given)
    assert section.summary.startswith(
        "group:S4 computes ab in S4 (100.00% of 576 pairs right) with (3,1), (2,2), sign"
    )
    key = {f.name for f in section.findings if f.kind == "algorithm" and f.shown and f.name}
    assert key == {"(3,1)", "(2,2)", "sign"}
    json.dumps(section.numbers, allow_nan=True)
