"""Features that are circles: days of the week, months, hours. Found or not, against all orderings, and causally.

If C classes lie on a circle in their order, the first Fourier mode over the classes holds the variance of their means.
With m_k the centred class means, s(k) their places in an ordering and w_k = e^(-2 pi i f s(k) / C),

    share_f = 2 |sum_k m_k w_k|^2 / (C sum_k |m_k|^2)        (without the 2 where f = C / 2)

is the part of frequency f, closed form and free of any choice of plane; its mean over orderings is 2 / (C - 1). The
plane is spanned by the real and imaginary part of the sum. Read next: ``turning.py``, which rotates along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import InputError
from interp.results import Result

__all__ = ["CircleTest", "circle_test"]

MOST = 1_000_000
"""Up to so many orderings all are tried; of more, this many are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CircleTest(Result):
    """``value``: share of the variance of held-out class means that the frequency holds along its plane."""

    p: float
    """Share of orderings (turns and reflections taken as one) whose fitted share is at least that of the true one."""
    orderings: int
    exact: bool
    """Whether these were all there are."""
    fitted: float
    """The share on the rows that the plane was found on."""
    roundness: float
    """1 - sd / mean of the held-out means' radius in the plane."""
    in_order: float
    """Share of neighbouring classes, of all C, whose held-out angles step by less than half a turn the right way and
    between a half and one and a half of a regular step."""
    plane: np.ndarray
    """[2, d] orthonormal; [1, d] at the frequency C / 2, where a step is a flip."""
    centre: np.ndarray
    """[d] mean of the class means."""
    means: np.ndarray
    """[class, d] of the rows that the plane was found on."""
    angles: np.ndarray
    """[class] held-out angle in the plane, radians."""
    spectrum: np.ndarray
    """[frequency] fitted shares of 1, 2, ... C / 2 in the true order."""

    @property
    def found(self) -> bool:
        """The true ordering is among the best hundredth, and held-out rows put more than chance into its plane."""
        return self.p <= 0.01 and float(self.value) > float(np.asarray(self.chance))


def circle_test(
    rows: Float[Tensor, "sample d"],
    classes: Int[Tensor, "sample"],
    *,
    n_classes: int | None = None,
    frequency: int = 1,
    seed: int = 0,
) -> CircleTest:
    """Whether the means of ordered classes lie on a circle in their order.

    Parameters
    ----------
    rows, classes
        Activations (or reconstructions), and the class of each, 0 to C - 1 in the order in question.
    frequency
        How many times the circle is wound while the classes go round once.
    seed
        Of the halves (fitting, held out) and of drawn orderings.

    Returns
    -------
    CircleTest
        ``.chance``: 2 / (C - 1), the mean over all orderings.

    Raises
    ------
    InputError
        Fewer than five classes, a class with fewer than two rows, or means that are all the same.

    References
    ----------
    Engels et al. 2024 (Not all language model features are linear), sections 3 and 5.
    """
    if not len(classes):
        raise InputError("there are no rows: nothing to order")
    n = int(classes.max()) + 1 if n_classes is None else n_classes
    if n < 5 or not 1 <= frequency <= n // 2:
        raise InputError(f"{n} classes at frequency {frequency}: an order is told from 5 classes on")
    counts = torch.bincount(classes, minlength=n)
    if len(classes) != len(rows) or len(counts) > n or int(counts.min()) < 2:
        raise InputError(f"{len(rows)} rows of classes with {counts.tolist()} rows: each of {n} needs two")
    means = _halves(rows.detach().double(), classes, n, seed)
    fit = means[0] - means[0].mean(0)
    if float(fit.square().sum()) <= 1e-20 * float(means[0].square().sum().clamp_min(1e-300)):
        raise InputError("the class means are all the same: there is nothing to order")
    p, tried, exact = _against_orderings((fit @ fit.T).numpy(), n, frequency, seed)
    wave = _wave(np.arange(n), n, frequency)
    plane = _plane(fit, wave)
    held = means[1] - means[1].mean(0)
    flat = (held @ torch.as_tensor(plane).T).numpy()
    angles = np.arctan2(flat[:, 1] if len(plane) == 2 else 0.0, flat[:, 0])
    radius = np.linalg.norm(flat, axis=1)
    return CircleTest(
        name=f"circle of {n}",
        value=_held_out(flat, held, wave, n, frequency),
        n=len(rows),
        convention=f"share of the variance of held-out class means at frequency {frequency} in the fitted plane",
        chance=(1 if 2 * frequency == n else 2) / (n - 1),
        p=p,
        orderings=tried,
        exact=exact,
        fitted=_share((fit @ fit.T).numpy(), wave[None], n, frequency)[0],
        roundness=float(1 - radius.std() / max(radius.mean(), 1e-300)),
        in_order=_in_order(angles, n, frequency),
        plane=plane,
        centre=means[0].mean(0).numpy(),
        means=means[0].numpy(),
        angles=angles,
        spectrum=np.array(
            [
                _share((fit @ fit.T).numpy(), _wave(np.arange(n), n, f)[None], n, f)[0]
                for f in range(1, n // 2 + 1)
            ]
        ),
        provenance={"seed": seed, "frequency": frequency, "rows_a_class": counts.tolist()},
    )


def _halves(rows: Tensor, classes: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Class means of the two halves of every class."""
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for k in range(n):
        inside = torch.nonzero(classes == k).flatten()
        inside = inside[torch.randperm(len(inside), generator=generator)]
        cut = len(inside) // 2
        first.append(rows[inside[:cut]].mean(0))
        second.append(rows[inside[cut:]].mean(0))
    return torch.stack(first), torch.stack(second)


def _wave(places: np.ndarray, n: int, frequency: int) -> np.ndarray:
    return np.exp(-2j * np.pi * frequency * places / n)


def _share(gram: np.ndarray, waves: np.ndarray, n: int, frequency: int) -> np.ndarray:
    """[ordering] shares, from the Gram matrix of the centred means."""
    power = np.einsum("ok,kl,ol->o", waves.conj(), gram, waves, optimize=True).real
    return (1 if 2 * frequency == n else 2) * power / (n * np.trace(gram))


def _against_orderings(gram: np.ndarray, n: int, frequency: int, seed: int) -> tuple[float, int, bool]:
    total = factorial(n - 1) // 2
    truth = _share(gram, _wave(np.arange(n), n, frequency)[None], n, frequency)[0]
    at_least, tried = 0, 0
    for orders in _orders(n, total, seed):
        shares = _share(gram, _wave(orders, n, frequency), n, frequency)
        at_least += int((shares >= truth * (1 - 1e-12)).sum())
        tried += len(orders)
    if total > MOST:
        at_least, tried = at_least + 1, tried + 1  # the true one is one of them
    return at_least / tried, tried, total <= MOST


def _orders(n: int, total: int, seed: int) -> Iterator[np.ndarray]:
    """Places of the classes, one ordering a row: the first class stays first, and of mirror images one is kept."""
    if total <= MOST:
        rest = np.array([p for p in permutations(range(1, n)) if p[0] < p[-1]])
        yield np.concatenate([np.zeros((len(rest), 1), dtype=int), rest], 1)
        return
    rng = np.random.default_rng(seed)
    for _ in range(MOST // 50_000):
        yield rng.permuted(np.tile(np.arange(n), (50_000, 1)), axis=1)


def _plane(fit: Tensor, wave: np.ndarray) -> np.ndarray:
    """Orthonormal [2, d]: cosine first, then what of the sine is orthogonal to it; [1, d] where there is no sine."""
    w = torch.as_tensor(wave)
    pair = torch.stack([w.real @ fit, -(w.imag @ fit)])
    first = pair[0] / pair[0].norm()
    if float(w.imag.abs().max()) < 1e-9:
        return first[None].numpy()
    second = pair[1] - (pair[1] @ first) * first
    return torch.stack([first, second / second.norm().clamp_min(1e-300)]).numpy()


def _held_out(flat: np.ndarray, held: Tensor, wave: np.ndarray, n: int, frequency: int) -> float:
    """The frequency's share along the fitted plane only, of all the variance of the held-out means."""
    power = float((np.abs(wave @ flat) ** 2).sum())
    return (1 if 2 * frequency == n else 2) * power / (n * float(held.square().sum()))


def _in_order(angles: np.ndarray, n: int, frequency: int) -> float:
    steps = np.diff(np.append(angles, angles[0]))
    regular = 2 * np.pi * frequency / n
    turns = (steps - regular + np.pi) % (2 * np.pi) - np.pi  # how far each step is from the regular one
    return float((np.abs(turns) < regular / 2).mean())
