"""Turning an activation within a plane, and whether the model then computes with the turned value.

If a day is an angle, then turning "Monday" by two seventh parts of a circle must make the model answer as if Wednesday
had been written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import Edit
from interp.errors import InputError
from interp.frames import Frame
from interp.results import Result
from interp.sites import Site
from sae.circles import CircleTest

__all__ = ["RotationTest", "rotate", "rotation_test"]


def rotate(
    site: str | Site,
    plane: Float[Tensor, "_ d"] | np.ndarray,
    angle: float,
    *,
    centre: Float[Tensor, "d"] | np.ndarray | float = 0.0,
    positions: Int[Tensor, "batch"] | None = None,
) -> Edit:
    """Turn what stands at a site by ``angle`` within a plane, about ``centre``; the rest stays.

    Parameters
    ----------
    plane
        Two orthonormal rows; the turn goes from the first to the second. One row: a line, which can only be flipped, by
        an odd multiple of pi.
    positions
        [batch] the column to turn in each row; every one without.

    Raises
    ------
    InputError
        The rows are not orthonormal, or a line is turned by another angle; while the model runs: another width, or
        positions for another batch.
    """
    p = torch.as_tensor(plane).double()
    n = len(p)
    if p.ndim != 2 or n not in (1, 2) or not torch.allclose(p @ p.T, torch.eye(n, dtype=p.dtype), atol=1e-6):
        raise InputError(f"a plane is two orthonormal rows [2, d], or one; got {list(p.shape)}")
    c, s = np.cos(angle), np.sin(angle)
    if n == 1 and abs(s) > 1e-6:
        raise InputError(f"a line cannot be turned by {angle:.3g}: only by a multiple of pi")
    turn = torch.tensor([[c - 1, s], [-s, c - 1]], dtype=p.dtype)[:n, :n]
    middle = torch.as_tensor(centre).double()

    def moved(value: Tensor, at: Site) -> Tensor:
        if value.shape[-1] != p.shape[1]:
            raise InputError(f"the plane lies in {p.shape[1]} dimensions; {at} holds {list(value.shape)}")
        x = value.double()
        flat = (x - middle.to(x.device)) @ p.T.to(x.device)
        return (x + flat @ turn.to(x.device) @ p.to(x.device)).to(value.dtype)

    return _at(site, moved, positions, "rotate")


def _at(site: str | Site, moved: Any, positions: Tensor | None, name: str) -> Edit:
    """An edit of one column a row (or of all)."""

    def change(value: Tensor, at: Site, frame: Frame) -> Tensor:
        new = moved(value, at)
        if positions is None:
            return new
        if frame.offset:
            return value
        if frame.rows not in (None, len(positions)):
            raise InputError(f"{len(positions)} positions for {frame.rows} rows")
        part = positions[frame.row : frame.row + len(value)].to(value.device)
        here = torch.arange(value.shape[1], device=value.device) == part[:, None]
        return torch.where(here[..., None], new, value)

    return Edit(sites=(site,), change=change, name=name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RotationTest(Result):
    """``value`` [shift]: share of prompts answered as if the class had been shifted; ``chance``: 1 / C."""

    kept: np.ndarray
    """[shift] share still answered as written."""
    random: np.ndarray
    """[shift] the same share when the turn is in a random plane, mean over planes."""
    swapped: np.ndarray
    """[shift] when the whole mean of the class is exchanged for that of the shifted one: what can be had at most."""
    plain: float
    """Share answered right without any edit."""


def rotation_test(
    model: Any,
    tokens: Any,
    site: str | Site,
    circle: CircleTest | Sequence[CircleTest],
    *,
    positions: Int[Tensor, "batch"],
    base: Int[Tensor, "batch"],
    answers: Int[Tensor, "batch"],
    words: Int[Tensor, "class"],
    shifts: Sequence[int] | None = None,
    n_random: int = 5,
    seed: int = 0,
) -> RotationTest:
    """Turn the class of one token along its circle and see whether the answer follows.

    Parameters
    ----------
    circle
        From :func:`sae.circle_test` on the same site; several, of different frequencies, are turned together, each by
        its own angle (their planes made orthogonal in this order): a class may be held by more than one.
    positions
        [batch] where the class stands in each prompt.
    base, answers
        [batch] the class that stands there, and the class of the right answer; a shift of the first by s classes
        shifts the second by s.
    words
        [class] the token of each class; the answer is the likeliest of them at the last position.
    shifts
        1 to C - 1 by default.
    n_random
        Random planes for the control.

    Returns
    -------
    RotationTest
        Cost: 1 + shifts (2 + n_random) forward passes.

    Raises
    ------
    InputError
        Lengths that do not fit, or a class beyond the circle.
    """
    n, circles = len(words), [circle] if isinstance(circle, CircleTest) else list(circle)
    if not circles or not len(positions) == len(base) == len(answers) or n != len(circles[0].means):
        raise InputError(
            f"{len(positions)} positions, {len(base)} classes, {len(answers)} answers of {n} words; the circle has "
            f"{len(circles[0].means) if circles else 0} classes"
        )
    steps = list(range(1, n)) if shifts is None else list(shifts)
    frequencies, sizes = [int(c.provenance["frequency"]) for c in circles], [len(c.plane) for c in circles]
    centre, generator = circles[0].centre, torch.Generator().manual_seed(seed)
    true = _orthogonal(torch.cat([torch.as_tensor(c.plane) for c in circles]), sizes)
    rivals = [
        _orthogonal(
            torch.randn(true[0].shape[1], sum(sizes), generator=generator, dtype=torch.float64).T, sizes
        )
        for _ in range(n_random)
    ]

    def said(edits: list[Edit]) -> Tensor:
        logits = model.logits(tokens, edits=edits)
        last = tokens.last if hasattr(tokens, "last") else torch.full((len(logits),), logits.shape[1] - 1)
        return logits[torch.arange(len(logits)), last][:, words].argmax(1).cpu()

    def turned(planes: list[Tensor], shift: int) -> Tensor:
        angles = [2 * np.pi * f * shift / n for f in frequencies]
        pairs = zip(planes, angles, strict=True)
        return said([rotate(site, p, a, centre=centre, positions=positions) for p, a in pairs])

    means = torch.as_tensor(circles[0].means)
    plain = said([])
    follow, kept, random, swapped = ([] for _ in range(4))
    for shift in steps:
        want = (answers + shift) % n
        now = turned(true, shift)
        follow.append(float((now == want).double().mean()))
        kept.append(float((now == answers).double().mean()))
        random.append(float(np.mean([float((turned(p, shift) == want).double().mean()) for p in rivals])))
        jump = (means[(base + shift) % n] - means[base])[:, None]
        edit = _at(site, _added(jump), positions, "swap")
        swapped.append(float((said([edit]) == want).double().mean()))
    value, count = np.array(follow), len(base)
    return RotationTest(
        name="rotation test",
        value=value,
        stderr=np.sqrt(value * (1 - value) / count),
        n=count,
        convention="share of prompts whose likeliest class is the shifted answer",
        chance=1 / n,
        axes=("shift",),
        ticks=(tuple(map(str, steps)),),
        kept=np.array(kept),
        random=np.array(random),
        swapped=np.array(swapped),
        plain=float((plain == answers).double().mean()),
        provenance={"site": str(site), "seed": seed, "frequencies": frequencies},
    )


def _orthogonal(rows: Tensor, sizes: list[int]) -> list[Tensor]:
    """Orthonormal planes, each kept as it is but for what lies in those before it."""
    q, r = torch.linalg.qr(rows.double().T)
    return list((q * r.diagonal().sign()).T.split(sizes))


def _added(jump: Tensor) -> Any:
    def moved(value: Tensor, at: Site) -> Tensor:
        return (value.double() + jump.to(value.device)).to(value.dtype)

    return moved
