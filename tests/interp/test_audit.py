"""The audit tells causal sites from inert ones, and the command says so with its exit code."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.cli import main


class Decoy(nn.Module):
    """Shows a tensor in a module whose output it then does not use: edits there do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.shown, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        self.shown(h)
        return self.out(torch.tanh(self.shown.weight @ h.transpose(1, 2)).transpose(1, 2))


def test_a_site_that_fires_but_does_nothing_is_found() -> None:
    torch.manual_seed(0)
    report = interp.load(Decoy()).audit(torch.arange(6).view(2, 3))
    assert report.inert == ("shown",)
    frame = report.to_frame().set_index("site")
    assert frame.loc["embed", "causal"]
    assert frame.loc["embed", "gradient"]
    assert not frame.loc["shown", "gradient"]
    assert "no gradient reaches there" in frame.loc["shown", "note"]


def test_the_embedded_network_is_causal_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "group:C59", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["silent"] == 0
    assert {row["site"] for row in said["sites"]} >= {
        "blocks.0.attn.hook_attn_scores",
        "blocks.0.hook_resid_mid",
    }
    assert all(row["causal"] and row["gradient"] for row in said["sites"])


def test_an_unknown_site_is_an_error_with_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "group:C59", "--sites", "blocks.3.hook_resid_post"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "error: no site 'blocks.3.hook_resid_post'; did you mean 'blocks.0.hook_resid_post'"
    )
    assert "1 layer, 0-0" in told


def test_an_unknown_backend_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "group:C59", "--backend", "transformer"]) == 2
    assert "--backend" in capsys.readouterr().err
