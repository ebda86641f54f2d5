"""Does mini use the number of the subject to choose the verb? One protocol, the same for every place and seed.

Prompts: agreement pairs held out of training. Direction: difference of the class means of nouns that wait for their
verb, in text that has nothing to do with the prompts. It is pushed along and patched between clean and corrupted
prompts, beside 99 random directions of equal length, where the model has to read it: at the subject, before the first
head that fetches it (1.1) and before the last (3.1), and at the last token behind the last block. Where nothing is
fetched yet, the last token of block 0, and for labels drawn at random, the verdict has to be another.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from probes import CausalUse, MassMeanProbe, ProbeDirection, causal_use, direction

SUBJECT, BEFORE, AFTER, END = (
    2,
    "blocks.0.hook_resid_post",
    "blocks.2.hook_resid_post",
    "blocks.3.hook_resid_post",
)


class Setting:
    """The model, prompts and independent text of one seed."""

    def __init__(self, n: int, seed: int, n_tokens: int = 20_000) -> None:
        self.seed, self.model = seed, interp.load("mini")
        self.task = interp.tasks.load("sva", model=self.model, split="heldout", n=n, seed=seed)
        self.number = torch.tensor([int(row["number"]) for row in self.task.facts])
        self.text = interp.toys.embedded("mini").sample(n_tokens, seed=seed)
        agreement = self.text.labels["agreement"]
        self.waiting = (agreement >= 0) & (self.text.labels["pos"] == 0)  # nouns: the label 0 of "pos"
        self.classes = agreement[self.waiting].numpy()

    def plural(self, logits: torch.Tensor) -> torch.Tensor:
        """Verbs of plural subjects against those of singular ones: one way for every prompt."""
        return self.task.metric(logits) * torch.where(self.number == 1, 1.0, -1.0)

    def rows(self, site: str) -> np.ndarray:
        return self.model.capture(self.text.tokens, site, batch_size=32)[site][self.waiting].numpy()

    def along(self, site: str, labels: np.ndarray | None = None) -> ProbeDirection:
        return direction(
            MassMeanProbe().fit(self.rows(site), self.classes if labels is None else labels), site
        )

    def labelled(self, place: str, classes: torch.Tensor) -> torch.Tensor:
        grid = torch.full(self.task.clean.ids.shape, -100)
        columns = torch.full_like(classes, SUBJECT) if place == "subject" else self.task.position
        grid[torch.arange(len(grid)), columns] = classes
        return grid

    def verdict(self, site: str, place: str, **options) -> CausalUse:
        return causal_use(
            self.model, self.task.clean, site, self.labelled(place, self.number), self.plural,
            along=self.along(site), corrupted=self.task.corrupted, seeds=[self.seed],
            position=[SUBJECT] if place == "subject" else "last", **options,
        )  # fmt: skip


def test_the_number_of_the_subject_is_encoded_and_used() -> None:
    setting = Setting(40, 0, 6000)
    used = setting.verdict(BEFORE, "subject", controls=19, doses=[0.25])
    assert used.verdict == "encoded and used"
    assert used.patched > 0.8 * used.patched_whole  # one direction carries the change of number
    assert used.patched_whole > 5  # logits, from one number's verbs to the other's


def test_a_random_label_of_the_subject_is_not_encoded() -> None:
    setting = Setting(40, 0, 64)
    noise = torch.randint(2, setting.number.shape, generator=torch.Generator().manual_seed(4))
    found = causal_use(
        setting.model, setting.task.clean, BEFORE, setting.labelled("subject", noise), setting.plural,
        controls=19, doses=[0.25], position=[SUBJECT], seeds=[0, 1],
    )  # fmt: skip
    assert found.verdict == "not encoded"


@pytest.mark.slow  # 800 forward passes of 200 prompts a place
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("site", "place", "expected"),
    [
        (BEFORE, "subject", "encoded and used"),
        (AFTER, "subject", "encoded and used"),
        (END, "last", "encoded and used"),
        (BEFORE, "last", "not used"),
    ],
)
def test_agreement_is_used_where_it_is_read_and_nowhere_else(
    site: str, place: str, expected: str, seed: int
) -> None:
    found = Setting(200, seed).verdict(site, place, controls=99)
    told = {
        "site": site, "place": place, "seed": seed, "verdict": found.verdict, "p": found.p_value,
        "patched": found.patched, "whole": found.patched_whole, "patched_p": found.patched_p,
        "most a control carries": float(np.abs(found.patched_controls).max()), "effect": list(found.value),
        "controls 95%": list(found.chance), "accuracy": found.accuracy, "interval": found.accuracy_interval,
        "nothing": found.nothing, "ablation": found.ablation, "controls' ablation": found.ablation_controls.max(),
    }  # fmt: skip
    if expected == "not used":
        assert found.verdict != "encoded and used", told
        assert abs(found.patched) < 0.1, told  # logits; at the subject it is eight
    else:
        assert found.verdict == expected, told


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_directions_of_permuted_labels_do_not_do_what_the_number_does(seed: int) -> None:
    setting = Setting(200, seed)
    rng = np.random.default_rng(seed)
    permuted = [setting.along(BEFORE, rng.permutation(setting.classes)) for _ in range(99)]
    found = setting.verdict(BEFORE, "subject", controls=permuted)
    assert found.verdict == "encoded and used"
    assert found.p_value == found.patched_p == 0.01
