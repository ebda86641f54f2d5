"""Circles of classes: closed forms, all orderings, planted and absent circles, and turns that a network follows."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interp
import sae
from interp.errors import InputError
from sae.clusters import group_shape, latent_groups
from sae.codes import codes_of_rows


def planted(
    n: int, d: int = 12, *, noise: float = 0.1, frequency: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows about a circle of n classes in a random plane of d dimensions, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(d, 2, generator=generator))[0].T
    classes = torch.arange(n).repeat(40)
    angle = 2 * torch.pi * frequency * classes / n
    rows = 5 + torch.stack([angle.cos(), angle.sin()], 1) @ plane
    return rows + noise * torch.randn(len(classes), d, generator=generator), classes


def test_a_planted_circle_is_found_and_no_other_ordering_is_as_good() -> None:
    rows, classes = planted(7)
    found = sae.circle_test(rows, classes)
    assert (found.orderings, found.exact) == (360, True)
    assert found.p == pytest.approx(1 / 360)
    assert float(found.value) > 0.95
    assert found.roundness > 0.9
    assert found.in_order == 1.0
    assert found.found
    assert found.spectrum.argmax() == 0
    np.testing.assert_allclose(found.plane @ found.plane.T, np.eye(2), atol=1e-12)


def test_means_without_an_order_are_not_found() -> None:
    generator = torch.Generator().manual_seed(3)
    p, shares = [], []
    for _ in range(20):
        means = torch.randn(7, 30, generator=generator)
        classes = torch.arange(7).repeat(10)
        found = sae.circle_test(means[classes] + 0.01 * torch.randn(70, 30, generator=generator), classes)
        p.append(found.p)
        shares.append(found.fitted)
    assert 0.3 < np.mean(p) < 0.7  # uniform where nothing is planted; sd of the mean 0.065
    assert np.mean(shares) == pytest.approx(2 / 6, abs=0.04)
    assert sum(x <= 0.01 for x in p) <= 2


def test_the_share_is_brute_force_over_every_permutation() -> None:
    rows, classes = planted(5, noise=1.0)
    found = sae.circle_test(rows, classes)
    means = found.means - found.means.mean(0)
    wave = np.exp(-2j * np.pi * np.arange(5) / 5)

    def share(order: tuple[int, ...]) -> float:
        return (
            2
            * float((np.abs(sum(wave[s] * m for s, m in zip(order, means, strict=True))) ** 2).sum())
            / (5 * float((means**2).sum()))
        )

    assert found.fitted == pytest.approx(share((0, 1, 2, 3, 4)))
    every = [share(order) for order in permutations(range(5))]
    assert found.p == pytest.approx(np.mean([v >= found.fitted * (1 - 1e-9) for v in every]))
    assert np.mean(every) == pytest.approx(found.chance)


def test_a_circle_wound_twice_shows_at_frequency_two_and_many_classes_draw_orderings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sae.circles.MOST", 100_000)
    rows, classes = planted(12, frequency=2, noise=0.3)
    once, twice = (sae.circle_test(rows, classes, frequency=f) for f in (1, 2))
    assert once.spectrum.argmax() == 1
    assert not once.found
    assert not twice.exact
    assert twice.orderings == 100_001
    assert twice.found


def test_a_turn_turns_and_a_whole_turn_does_nothing() -> None:
    plane = torch.eye(6)[:2]
    net = interp.load(nn.Sequential(nn.Linear(6, 6), nn.Identity()))
    x = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))
    before = net.capture(x, "0")["0"]
    quarter = net.capture(
        x, "0", edits=[sae.rotate("0", plane, np.pi / 2, positions=torch.tensor([0, 1, 2, 0]))]
    )["0"]
    for row, column in enumerate((0, 1, 2, 0)):
        a, b = before[row, column], quarter[row, column]
        torch.testing.assert_close(b[:2], torch.stack([-a[1], a[0]]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(b[2:], a[2:])
    changed = (quarter != before).any(-1)
    assert changed.sum() == 4
    whole = net.capture(x, "0", edits=[sae.rotate("0", plane, 2 * np.pi, centre=torch.ones(6))])["0"]
    torch.testing.assert_close(whole, before, atol=1e-6, rtol=1e-6)
    with pytest.raises(InputError, match="two orthonormal rows"):
        sae.rotate("0", 2 * plane, 1.0)
    with pytest.raises(InputError, match="3 positions for 4 rows"):
        net.capture(x, "0", edits=[sae.rotate("0", plane, 1.0, positions=torch.zeros(3, dtype=torch.long))])


class Clock(nn.Module):
    """Adds a number to a day by turning: tokens [day, number] -> scores of the days at both places."""

    def __init__(self, n: int = 7, *, by_angle: bool = True) -> None:
        super().__init__()
        self.n, self.by_angle = n, by_angle
        table = torch.zeros(n, 10)
        angle = 2 * torch.pi * torch.arange(n) / n
        table[:, 0], table[:, 1] = angle.cos(), angle.sin()
        table[:, 2:9] = 3 * torch.eye(n)  # the day's name as well
        self.embed = nn.Embedding.from_pretrained(table)

    def forward(self, ids: Tensor) -> Tensor:
        day = self.embed(ids)[:, 0]
        angle = torch.atan2(day[:, 1], day[:, 0]) + 2 * torch.pi * ids[:, 1] / self.n
        turned = torch.stack([(angle - 2 * torch.pi * k / self.n).cos() for k in range(self.n)], 1)
        if not self.by_angle:
            turned = torch.stack([day[:, 2:9].roll(int(s), 1)[i] for i, s in enumerate(ids[:, 1])])
        return turned[:, None].expand(-1, 2, -1)


@pytest.mark.parametrize("by_angle", [True, False])
def test_a_network_that_computes_with_the_angle_follows_its_turn_and_another_does_not(by_angle: bool) -> None:
    model = interp.load(Clock(by_angle=by_angle))
    base, number = torch.arange(7).repeat_interleave(7), torch.arange(7).repeat(7)
    ids = torch.stack([base, number], 1)
    rows = model.capture(ids, "embed")["embed"][:, 0]
    noise = 1e-3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    circle = sae.circle_test(
        rows[:, :2] @ torch.eye(10)[:2] + noise, base
    )  # its angle only, without the name
    options = {"positions": torch.zeros(49, dtype=torch.long), "base": base, "answers": (base + number) % 7}
    found = sae.rotation_test(model, ids, "embed", circle, words=torch.arange(7), **options)
    assert found.plain == 1.0
    if by_angle:
        np.testing.assert_allclose(found.value, 1.0)
        np.testing.assert_allclose(found.kept, 0.0)
        assert found.random.max() < 0.5
    else:
        np.testing.assert_allclose(found.value, 0.0)
        np.testing.assert_allclose(found.kept, 1.0)
    with pytest.raises(InputError, match="the circle has 7 classes"):
        sae.rotation_test(model, ids, "embed", circle, words=torch.arange(5), **options)


class TwoClocks(Clock):
    """A day is two angles, once round and three times round; the answer must agree with both."""

    def __init__(self) -> None:
        super().__init__()
        angle = 2 * torch.pi * torch.arange(7) / 7
        table = torch.cat([torch.stack([(f * angle).cos(), (f * angle).sin()], 1) for f in (1, 3)], 1)
        self.embed = nn.Embedding.from_pretrained(torch.cat([table, torch.zeros(7, 6)], 1))

    def forward(self, ids: Tensor) -> Tensor:
        day, step = self.embed(ids)[:, 0], 2 * torch.pi * ids[:, 1] / 7
        scores = 0.0
        for i, f in ((0, 1), (2, 3)):
            angle = torch.atan2(day[:, i + 1], day[:, i]) + f * step
            scores = scores + torch.stack([(angle - 2 * torch.pi * f * k / 7).cos() for k in range(7)], 1)
        return scores[:, None].expand(-1, 2, -1)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_class_held_by_two_circles_follows_when_both_are_turned_and_not_by_one() -> None:
    model = interp.load(TwoClocks())
    base, number = torch.arange(7).repeat_interleave(7), torch.arange(7).repeat(7)
    ids = torch.stack([base, number], 1)
    rows = model.capture(ids, "embed")["embed"][:, 0]
    rows = rows + 1e-3 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    once, thrice = (sae.circle_test(rows, base, frequency=f) for f in (1, 3))
    options = {"positions": torch.zeros(49, dtype=torch.long), "base": base, "answers": (base + number) % 7}
    one = sae.rotation_test(model, ids, "embed", once, words=torch.arange(7), **options)
    both = sae.rotation_test(model, ids, "embed", [once, thrice], words=torch.arange(7), **options)
    np.testing.assert_allclose(both.value, 1.0)
    assert np.asarray(one.value).min() < 0.5
    np.testing.assert_allclose(both.swapped, 1.0)


def test_at_half_the_number_of_classes_the_circle_is_a_line_of_even_and_odd() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(8).repeat(20)
    direction = torch.nn.functional.normalize(torch.randn(6, generator=generator), dim=0)
    rows = (1 - 2 * (classes % 2))[:, None] * direction + 0.05 * torch.randn(160, 6, generator=generator)
    found = sae.circle_test(rows, classes, frequency=4)
    assert found.plane.shape == (1, 6)
    assert float(found.value) > 0.95
    assert abs(float(found.plane[0] @ direction.numpy())) > 0.99
    net = interp.load(nn.Sequential(nn.Identity()))
    flipped = net.capture(rows[None], "0", edits=[sae.rotate("0", found.plane, np.pi)])["0"][0]
    torch.testing.assert_close(flipped @ direction, -(rows @ direction), atol=0.05, rtol=0.05)
    with pytest.raises(InputError, match="a line cannot be turned by 1"):
        sae.rotate("0", found.plane, 1.0)


def ring_and_single() -> tuple[sae.Coder, Tensor]:
    """Six latents round a circle in a plane, and ten that have nothing to do with each other."""
    angle = 2 * torch.pi * torch.arange(6) / 6
    directions = torch.zeros(16, 14)
    directions[:6, 0], directions[:6, 1] = angle.cos(), angle.sin()
    directions[6:, 2:12] = torch.eye(10)
    coder = sae.Coder(14, 16, 8, kind="relu")
    with torch.no_grad():
        coder.W_dec.copy_(directions)
        coder.W_enc.copy_(directions.T)
        coder.b_enc.fill_(-0.2)
    generator = torch.Generator().manual_seed(0)
    turn = 2 * torch.pi * torch.rand(3000, generator=generator)
    rows = torch.zeros(3000, 14)
    rows[:, 0], rows[:, 1] = turn.cos(), turn.sin()
    on = torch.rand(3000, 10, generator=generator) < 0.1
    rows[:, 2:12] = on * (1 + torch.rand(3000, 10, generator=generator))
    return coder, rows


@pytest.mark.parametrize("how", ["direction", "firing"])
def test_latents_round_a_circle_form_a_group_and_single_ones_do_not(how: str) -> None:
    coder, rows = ring_and_single()
    codes = codes_of_rows(coder, rows)
    groups = latent_groups(coder, codes, how=how, least=0.4 if how == "direction" else 0.2)
    assert [list(g) for g in groups] == [[0, 1, 2, 3, 4, 5]]
    with pytest.raises(InputError, match="'direction' or 'firing'"):
        latent_groups(coder, codes, how="both")
    with pytest.raises(InputError, match="give codes="):
        latent_groups(coder, how="firing")


def test_the_shape_of_a_circle_is_irreducible_and_that_of_two_features_is_not() -> None:
    coder, rows = ring_and_single()
    codes = codes_of_rows(coder, rows)
    ring = group_shape(coder, codes, np.arange(6))
    pair = group_shape(coder, codes, np.array([6, 7, 8]))
    assert ring.roundness[0] > 0.9
    # of a circle a quarter lies near one of its tangents; of two rarely met features more lies on one axis
    assert ring.mixture[0] < 0.3 < pair.mixture[0]
    assert (
        ring.irreducible[0] > 1.2 * pair.irreducible[0]
    )  # rows without any of the three are not in the group
    assert ring.variance[:2].sum() > 0.99
    with pytest.raises(InputError, match="fire on 1 tokens; a shape needs 50"):
        one = codes_of_rows(coder, rows[:1])
        group_shape(coder, one, one.matrix.tocsr().indices)


def test_too_few_classes_or_rows_are_named() -> None:
    rows, classes = planted(7)
    with pytest.raises(InputError, match="from 5 classes on"):
        sae.circle_test(rows, classes % 4)
    with pytest.raises(InputError, match="each of 8 needs two"):
        sae.circle_test(rows, classes, n_classes=8)
    with pytest.raises(InputError, match="there are no rows"):
        sae.circle_test(torch.ones(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(InputError, match="all the same"):
        sae.circle_test(torch.ones(70, 3), torch.arange(7).repeat(10))
