"""The geometry station and the rows that stations look at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import InputError
from interp.metrics.station import STATION
from interp.study.effort import DEEP
from interp.study.sampling import draw, layer_sites, residual_sites
from interp.study.stations import Station, Study
from interp.tokens import Tokens
from interp.toys import Shape, Transformer


class Pair(nn.Module):
    """Two embeddings, a hidden layer, an answer: sites without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_left, self.embed_right = nn.Embedding(12, 6), nn.Embedding(12, 6)
        self.hidden, self.out = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(
            torch.relu(self.hidden(torch.cat([self.embed_left(ids[:, 0]), self.embed_right(ids[:, 1])], -1)))
        )


def study(tmp_path: Path, *, n: int = 20, length: int = 8, begin: bool = False) -> Study:
    module = Transformer(
        Shape(d_vocab=11, n_ctx=16, n_layers=3, d_model=16, n_heads=2, d_mlp=32),
        generator=torch.Generator().manual_seed(0),
    )
    ids = torch.randint(11, (n, length), generator=torch.Generator().manual_seed(1))
    if begin:
        ids[:, 0] = 3
    return Study(model=interp.load(module), tokens=Tokens.full(ids), out=tmp_path)


def plain(tmp_path: Path, n: int = 60) -> Study:
    torch.manual_seed(0)
    ids = torch.randint(12, (n, 2), generator=torch.Generator().manual_seed(1))
    return Study(model=interp.load(Pair()), tokens=Tokens.full(ids), out=tmp_path)


def test_it_is_a_station() -> None:
    assert isinstance(STATION, Station)
    assert STATION.order == 10


def test_drawn_rows_are_the_captured_ones(tmp_path: Path) -> None:
    given = study(tmp_path)
    sites = residual_sites(layer_sites(given))
    rows = draw(given, sites, n_rows=50, seed=0)
    acts = given.model.capture(given.tokens, list(sites))
    assert len(rows) == 50
    for site in sites:
        torch.testing.assert_close(rows.acts[site], acts[site][rows.doc, rows.pos])
    assert torch.equal(rows.ids, given.tokens.ids[rows.doc, rows.pos])


def test_rows_from_a_store_are_the_captured_ones(tmp_path: Path) -> None:
    given = study(tmp_path)
    sites = layer_sites(given)
    store = interp.harvest(given.model, given.tokens, list(sites), tmp_path / "acts")
    stored = Study(model=given.model, tokens=given.tokens, store=store, out=tmp_path)
    rows = draw(stored, sites, n_rows=40, seed=0)
    acts = given.model.capture(given.tokens, list(sites))
    for site in sites:
        # one pass over another batch: equal to rounding
        torch.testing.assert_close(rows.acts[site], acts[site][rows.doc, rows.pos], atol=1e-5, rtol=1e-5)


def test_a_first_token_that_all_sequences_share_is_left_out(tmp_path: Path) -> None:
    given = study(tmp_path, begin=True)
    assert int(draw(given, layer_sites(given), n_rows=10**6, seed=0).pos.min()) == 1
    assert int(draw(study(tmp_path), layer_sites(given), n_rows=10**6, seed=0).pos.min()) == 0


def test_sites_without_positions_give_one_row_an_input(tmp_path: Path) -> None:
    given = plain(tmp_path)
    rows = draw(given, given.model.find(["hidden", "out"]), n_rows=1000, seed=0)
    assert len(rows) == 60
    assert bool((rows.pos == -1).all())


def test_nothing_to_draw_from_is_said(tmp_path: Path) -> None:
    given = study(tmp_path)
    with pytest.raises(InputError, match="no rows"):
        draw(given, layer_sites(given), n_rows=10, seed=0, where=torch.zeros(20, 8, dtype=torch.bool))


@pytest.mark.parametrize("make", [study, plain])
def test_the_section_is_json_with_figures_n_and_conventions(make, tmp_path: Path) -> None:
    given = make(tmp_path)
    assert STATION.applies(given) is None
    assert STATION.estimate(given).seconds > 0
    section = STATION.run(given)
    json.dumps(section.numbers, allow_nan=False)
    assert len(section.plates) == 2
    assert all(plate.figure.to_plotly_json()["data"] for plate in section.plates)
    assert section.numbers["cka"]["n"] > 0
    assert "debiased" in section.numbers["cka"]["convention"]
    for shuffled in section.numbers["cka"]["shuffled_rows"]:
        assert abs(shuffled) < 0.3  # unrelated rows: nought within the noise of a few dozen samples


def test_a_model_of_one_site_and_a_handful_of_tokens_are_declined(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(5, 4))
    one = Study(
        model=interp.load(module), tokens=Tokens.full(torch.zeros(40, 3, dtype=torch.long)), out=tmp_path
    )
    assert "at least two sites" in str(STATION.applies(one))
    assert "too few" in str(STATION.applies(study(tmp_path, n=2, length=4)))


def test_in_full_it_adds_the_profile_beside_an_untrained_network_and_the_lens(tmp_path) -> None:
    section = STATION.run(replace(study(tmp_path), effort=DEEP))
    json.dumps(section.numbers, allow_nan=False)
    anchors = {plate.anchor for plate in section.plates}
    assert {"profile-stable-rank", "profile-curvature", "cka-untrained", "lens"} <= anchors
    profile = section.numbers["profile"]["effective rank"]
    rank = [r["value"] for r in section.numbers["rank"]["effective rank"]]
    assert len(profile["untrained"]) == len(profile["value"]) == len(rank)
    assert section.numbers["logit_lens"]["kl_nats"][-1] == pytest.approx(0, abs=1e-6)
    assert {f.measure for f in section.findings} >= {
        "effective rank",
        "curvature (profile)",
        "CKA with the site before",
    }


def test_in_full_a_network_that_reads_whole_inputs_has_a_profile_without_paths(tmp_path) -> None:
    ids = torch.randint(12, (60, 2), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    given = Study(model=interp.load(Pair()), tokens=Tokens.full(ids), out=tmp_path, effort=DEEP)
    profile = STATION.run(given).numbers["profile"]
    assert "stable rank" in profile
    assert "curvature" not in profile


def test_what_a_model_does_not_allow_in_full_is_a_caveat_with_its_reason(tmp_path) -> None:
    module = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 11))
    ids = torch.randint(11, (60, 6), generator=torch.Generator().manual_seed(1))
    given = Study(model=interp.load(module), tokens=Tokens.full(ids), out=tmp_path, effort=DEEP)
    section = STATION.run(given)
    assert any(caveat.startswith("The logit lens was left out:") for caveat in section.caveats)
    assert "profile" in section.numbers
