"""The SAE station: trained on some texts, judged on others, honest about what is too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import interp
from interp.study.effort import DEEP, QUICK
from interp.study.findings import STREAM
from interp.study.sampling import Rows
from interp.study.stations import Station, Study
from interp.tokens import Tokens
from interp.toys import Shape, Transformer
from sae.station import STATION, _shown, middle_site, settings


def study(tmp_path: Path, n: int = 100) -> Study:
    module = Transformer(
        Shape(d_vocab=11, n_ctx=16, n_layers=3, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    ids = torch.randint(11, (n, 10), generator=torch.Generator().manual_seed(1))
    return Study(model=interp.load(module), tokens=Tokens.full(ids, show=lambda i: f"<{i}>"), out=tmp_path)


def test_it_is_a_station() -> None:
    assert isinstance(STATION, Station)
    assert STATION.order == 30


def test_a_section_reports_the_coder_beside_its_baselines_and_shows_tokens(tmp_path: Path) -> None:
    given = study(tmp_path)
    assert STATION.applies(given) is None
    assert STATION.estimate(given).seconds > 0
    section = STATION.run(given)
    json.dumps(section.numbers, allow_nan=False)
    numbers = section.numbers
    assert numbers["site"] == "blocks.1.hook_resid_post"
    assert numbers["n"] + numbers["n_train"] == 1000
    assert len(numbers["baselines_fvu"]) == 2
    assert numbers["fvu"] < min(numbers["baselines_fvu"].values())
    assert len(section.plates) == 3
    assert f"against {list(numbers['baselines_fvu'].values())[0]:.1%} for PCA" in section.summary
    assert any("[<" in str(row[3]) for row in section.tables[0].rows)
    again = STATION.run(given)  # takes its own finished run over, with the same figures
    assert again.numbers["fvu"] == numbers["fvu"]


@pytest.mark.parametrize(
    ("strings", "shown"), [(("58", "12", "="), "58 12 [=]"), (("A", " cat", "."), "A cat[.]")]
)
def test_tokens_are_set_apart_where_they_carry_no_spaces(
    tmp_path: Path, strings: tuple[str, ...], shown: str
) -> None:
    tokens = Tokens.full(torch.tensor([[0, 1, 2]]), show=lambda i: strings[i])
    rows = Rows(acts={}, ids=torch.tensor([2]), doc=torch.tensor([0]), pos=torch.tensor([2]))
    assert _shown(Study(model=None, tokens=tokens, out=tmp_path), rows, 0) == shown


def test_the_middle_is_the_output_of_the_middle_block(tmp_path: Path) -> None:
    assert str(middle_site(study(tmp_path).model.sites)) == "blocks.1.hook_resid_post"


@pytest.mark.parametrize(("n", "d"), [(512, 4), (2000, 64), (40_000, 768), (40_000, 4096)])
def test_the_settings_fit_data_and_budget(n: int, d: int) -> None:
    config = settings(n, d, 0)
    assert config.batch_size <= n
    assert config.d_sae * 8 <= max(n, 128)
    assert config.steps >= 200


def test_too_few_rows_and_too_narrow_sites_are_declined(tmp_path: Path) -> None:
    assert "too few to train" in str(STATION.applies(study(tmp_path, n=20)))
    narrow = Study(
        model=interp.load(nn.Sequential(nn.Embedding(5, 2))),
        tokens=Tokens.full(torch.zeros(300, 3, dtype=torch.long)),
        out=tmp_path,
    )
    assert "2 wide" in str(STATION.applies(narrow))


def test_in_full_the_loss_is_measured_latents_answer_the_task_and_the_page_is_linked(tmp_path: Path) -> None:
    home = tmp_path / "stations" / "sae"
    home.mkdir(parents=True)
    given = replace(study(home), effort=DEEP)
    ids = given.tokens.ids[:40, :6]
    clean, corrupted = ids.clone(), ids.clone()
    clean[:, -1], corrupted[:, -1] = 3, 7  # another last token: latents of tokens must differ there
    pairs = Pairs(clean=Tokens.full(clean), corrupted=Tokens.full(corrupted))
    section = STATION.run(replace(given, task=pairs))
    json.dumps(section.numbers, allow_nan=False)
    assert 0.5 < section.numbers["loss_recovered"]["value"] <= 1.01
    assert section.leaves[0].path.is_file()
    latents = [f for f in section.findings if f.kind == "latent"]
    assert latents
    assert all(f.own and f.href.startswith("stations/sae/features.html#f=") for f in latents)
    assert all(f.low * f.high > 0 for f in latents if f.low is not None and f.high is not None)
    (bearings,) = section.bearings
    assert bearings.space == STREAM
    assert bearings.vectors.shape[1] == 16
    same = STATION.run(replace(given, task=Pairs(clean=Tokens.full(clean), corrupted=Tokens.full(clean))))
    assert not [f for f in same.findings if f.kind == "latent"]  # nothing differs: nothing answers


def test_a_quick_look_takes_fewer_steps(tmp_path: Path) -> None:
    assert settings(40_000, 128, 0, scale=QUICK.scale).steps < settings(40_000, 128, 0).steps / 3


class Pairs:
    """As much of a task as the station reads."""

    name = "planted"

    def __init__(self, *, clean: Tokens, corrupted: Tokens) -> None:
        self.clean, self.corrupted = clean, corrupted
