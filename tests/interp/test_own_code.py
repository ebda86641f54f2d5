"""A network of one's own, as it is written: what makes its study and its activations others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import interp
from interp.cli import main
from interp.errors import InputError
from interp.report import read
from interp.study import stations as registry
from interp.study.job import prepare
from interp.study.sourcefile import code_of, made_by
from tests.interp.fake_stations import Fake, section

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
    def forward(self, x):
        return self.last(torch.relu(self.first(x)))
def make():
    torch.manual_seed(0)
    return Net(), torch.arange(40.0).view(10, 4) / 40
"""


def test_a_network_whose_code_or_inputs_changed_is_another_study(tmp_path, monkeypatch, capsys) -> None:
    good = Fake("good", 1, lambda s: section(s, text=f"{float(s.model.logits(s.tokens).sum()):.6f}"))
    monkeypatch.setattr(registry, "stations", lambda: (good,))
    found = {}
    variants = (NET, NET, NET.replace("torch.relu", "torch.tanh"), NET.replace("/ 40", "/ 20"))
    for text in variants:
        (tmp_path / "net.py").write_text(text)
        assert main(["analyze", f"{tmp_path / 'net.py'}:make", "--out", str(tmp_path / "r")]) == 0
        found.setdefault(text, set()).add(read(tmp_path / "r" / "report.json")["sections"][0]["summary"])
    assert good.n_runs == 3  # the second is the first, taken over
    assert [len(said) for said in found.values()] == [1, 1, 1]
    assert len(set.union(*found.values())) == 3
    assert code_of(nn.Linear(2, 2)) != code_of(nn.Linear(2, 3))
    one, other = (code_of(nn.Sequential(nn.Linear(2, 2), f())) for f in (nn.ReLU, nn.Tanh))
    assert one != other
    capsys.readouterr()


def test_the_same_weights_under_another_configuration_are_another_study_and_another_store(tmp_path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config: dict[str, Any] = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 8, "vocab_size": 11}
    models = [
        GPT2LMHeadModel(GPT2Config(**config, activation_function=name)).eval() for name in ("relu", "tanh")
    ]
    models[1].load_state_dict(models[0].state_dict())
    tokens = torch.arange(10).view(2, 5)
    jobs = [prepare(interp.load(model), tokens=tokens) for model in models]
    assert jobs[0].model.fingerprint() == jobs[1].model.fingerprint()
    assert jobs[0].tokens_hash() == jobs[1].tokens_hash()
    assert len({job.acts_hash() for job in jobs}) == len({job.key() for job in jobs}) == 2
    site = "blocks.0.hook_resid_post"
    relu, tanh = (interp.harvest(job.model, tokens, site, tmp_path) for job in jobs)
    assert relu.path != tanh.path
    assert not torch.equal(relu.rows(site, slice(0, 10)), tanh.rows(site, slice(0, 10)))


def test_the_device_and_the_backend_hold_for_a_file_of_ones_own(tmp_path) -> None:
    (tmp_path / "net.py").write_text(NET)
    made = made_by(f"{tmp_path / 'net.py'}:make", device="meta")
    assert {p.device.type for p in made.model.parameters()} == {"meta"}
    with pytest.raises(InputError, match="backend 'nnsight' does not run .*net.py:make"):
        made_by(f"{tmp_path / 'net.py'}:make", backend="nnsight")
