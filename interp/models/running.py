"""One forward pass with visitors: the plain torch hooks under every capture and every edit.

Hooks are put on for one pass, only on the modules that are visited, and always come off, also
after an exception. Nothing of the caller's module is wrapped, renamed or left changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import CheckError, SiteError
from interp.frames import Frame
from interp.models.taps import WHOLE, Moment, Tap
from interp.sites import KINDS, Site

__all__ = [
    "ATTENTION",
    "Pass",
    "Plan",
    "Stop",
    "Visit",
    "Visitor",
    "check_all_made",
    "check_finite",
    "evaluating",
    "first_tensor",
    "inside_attention",
    "plan_of",
    "run_planned",
    "with_first_tensor",
    "wrong_axes",
]

Visitor = Callable[[Tensor], Tensor | None]
"""Is shown a site's tensor; returns what stands there from now on, or None to leave it."""

Visit = tuple[Site, Visitor]


class Stop(BaseException):  # no Exception: a model's own `except Exception` must not swallow it
    """Raised inside a hook once nothing further down the pass was asked for."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One visit's place in a plan: which visit it is, and the axes its tensor must have."""

    index: int
    site: Site
    tap: Tap
    n_axes: int | None
    by_pos: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One module and side, with the visits made there in order."""

    module: nn.Module | None
    """None where the pass runs on another machine."""
    path: str
    side: str
    spots: tuple[Spot, ...]
    plain: bool
    """Whether every visit there sees the module's tensor itself."""
    numbered: bool
    """Whether some visit is meant for one call of the module only."""
    base: str | None
    remember: bool
    """Whether the module's input is needed by a visit further down."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a sequence of sites is visited; made once for each sequence that is asked for."""

    sites: tuple[Site, ...]
    places: tuple[Place, ...]
    inside: tuple[Place, ...]
    """The visits inside attention functions."""


def plan_of(
    find: Callable[[str], nn.Module], tapped: Sequence[tuple[Site, Tap]], *, looking: bool = False
) -> Plan:
    """The plan for visiting sites in this order; ``find`` gives the module of a tap's path.

    ``looking``: no visit changes anything, so each site may be seen wherever its tensor passes by.
    """
    groups: dict[tuple[str, str], list[Spot]] = {}
    if looking:
        tapped = [(site, tap.look or tap) for site, tap in tapped]
    for index, (site, tap) in enumerate(tapped):
        axes = KINDS[site.kind][1] if site.path is None else None
        spot = Spot(index, site, tap, len(axes) if axes else None, axes is not None and axes[1] == "pos")
        groups.setdefault((tap.path, tap.side), []).append(spot)
    bases = {tap.base for _, tap in tapped if tap.base}
    for base in bases:
        groups.setdefault((base, "in"), [])
    places = [
        Place(
            module=find(path),
            path=path,
            side=side,
            spots=tuple(spots),
            plain=all(spot.tap.view is WHOLE for spot in spots),
            numbered=any(spot.tap.call is not None for spot in spots),
            base=next((spot.tap.base for spot in spots if spot.tap.base), None),
            remember=side == "in" and path in bases,
        )
        for (path, side), spots in groups.items()
    ]
    return Plan(
        tuple(site for site, _ in tapped),
        tuple(place for place in places if place.side in ("in", "out")),
        tuple(place for place in places if place.side not in ("in", "out")),
    )


class Pass:
    """The state of one pass: the visitors, which captures are still to come, which visits have been made."""

    __slots__ = ("bases", "calls", "frame", "lead", "left", "made", "owner", "visitors")

    def __init__(self, visitors: Sequence[Visitor], frame: Frame, wanted: Collection[Site] | None) -> None:
        self.visitors = visitors
        self.frame = frame
        self.lead = (frame.batch, frame.pos)
        self.left = None if wanted is None else set(wanted)  # captures still to come; None: run to the end
        self.made: set[Site] = set()
        self.bases: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.owner = get_ident()

    def on_top(self) -> bool:
        """Whether this is the innermost pass of its thread: an edit may run the model itself."""
        stack = _PASSES.get(get_ident())
        return stack is not None and stack[-1] is self

    def visit(self, tensor: Tensor, spots: Sequence[Spot], moment: Moment | None) -> Tensor:
        """Show ``tensor`` to each visitor in turn; what stands there afterwards."""
        for spot in spots:
            view = spot.tap.view
            whole = moment is None or view is WHOLE
            value = tensor if whole else moment.shown(view, tensor)  # type: ignore[union-attr]
            if spot.n_axes is not None:
                shape = value.shape
                lead = self.lead if spot.by_pos else self.lead[:1]
                if len(shape) != spot.n_axes or shape[: len(lead)] != lead:
                    raise wrong_axes(spot.site, value, self.frame)
            new = self.visitors[spot.index](value)
            if new is not None:
                tensor = new if whole else moment.written(view, tensor, value, new)  # type: ignore[union-attr]
            self.made.add(spot.site)
            if self.left is not None:
                self.left.discard(spot.site)
        return tensor

    def due(self, place: Place) -> Sequence[Spot]:
        """The visits meant for this call of a module that may run several times in one pass."""
        key = f"{place.path}:{place.side}"
        call = self.calls.get(key, 0)
        self.calls[key] = call + 1
        return [spot for spot in place.spots if spot.tap.call in (None, call)]

    def stop_if_done(self) -> None:
        if self.left is not None and not self.left:
            raise Stop


def wrong_axes(site: Site, value: Tensor, frame: Frame) -> SiteError:
    """The error for a tensor that has not the axes its site's name promises."""
    return SiteError(
        f"{site} holds {list(value.shape)} {value.dtype}; its axes are {list(KINDS[site.kind][1])} "
        f"with batch {frame.batch} and pos {frame.pos}"
    )


_PASSES: dict[int, list[Pass]] = {}
"""The passes under way, by thread, innermost last."""


class Stages:
    """The visits inside one attention function: which stages are asked for, and showing them."""

    __slots__ = ("_places", "_state")

    def __init__(self, state: Pass) -> None:
        self._state = state
        self._places: dict[str, Place] = {}

    def add(self, place: Place) -> None:
        self._places[place.side] = place

    def __contains__(self, side: str) -> bool:
        return side in self._places

    def show(self, side: str, tensor: Tensor) -> Tensor:
        """Show ``tensor`` to the visitors of a stage; what stands there afterwards."""
        place = self._places.get(side)
        if place is None:
            return tensor
        tensor = self._state.visit(tensor, place.spots, None)
        self._state.stop_if_done()
        return tensor


ATTENTION: ContextVar[Mapping[nn.Module, Stages] | None] = ContextVar("attention stages", default=None)
"""The visits inside attention functions of the pass under way, by attention module."""


@contextmanager
def inside_attention(plan: Plan, state: Pass) -> Iterator[None]:
    """Let the attention functions of the pass under way find their visits."""
    if not plan.inside and not ATTENTION.get():
        yield
        return
    stages: dict[nn.Module, Stages] = {}
    for place in plan.inside:
        assert place.module is not None  # attention functions are reached on local models only
        stages.setdefault(place.module, Stages(state)).add(place)
    token = ATTENTION.set(stages)
    try:
        yield
    finally:
        ATTENTION.reset(token)


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a module's input or output carries: itself, or the first one of a tuple or mapping."""
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((item for item in items if isinstance(item, Tensor)), None)


def with_first_tensor(value: Any, new: Tensor) -> Any:
    """``value`` with its (first) tensor replaced by ``new``."""
    if isinstance(value, Tensor):
        return new
    if isinstance(value, tuple | list):
        place = next(i for i, item in enumerate(value) if isinstance(item, Tensor))
        items = [*value[:place], new, *value[place + 1 :]]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    key = next(k for k, item in value.items() if isinstance(item, Tensor))
    changed = copy.copy(value)
    changed[key] = new
    return changed


def _entering(args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Tensor | None]:
    """Where a module's main input stands (its position or name) and the tensor itself."""
    for place, item in enumerate(args):
        if isinstance(item, Tensor):
            return place, item
    for name in ("hidden_states", *kwargs):
        if isinstance(kwargs.get(name), Tensor):
            return name, kwargs[name]
    return None, None


def _out_hook(place: Place, state: Pass) -> Callable:
    def hook(module: nn.Module, args: tuple, out: Any) -> Any:
        if not state.on_top():
            return None
        tensor = out if isinstance(out, Tensor) else first_tensor(out)
        if tensor is None:
            raise SiteError(
                f"module {place.path!r} returns {type(out).__name__}, which holds no tensor; ask for one inside it"
            )
        moment = None
        if not place.plain:
            base = state.bases.get(place.base) if place.base else None
            moment = Moment(module, first_tensor(args), tensor, base, state.frame.batch)
        new = state.visit(tensor, state.due(place) if place.numbered else place.spots, moment)
        if state.left is not None and not state.left:
            raise Stop
        return None if new is tensor else with_first_tensor(out, new)

    return hook


def _in_hook(place: Place, state: Pass) -> Callable:
    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if not state.on_top():
            return None
        where, tensor = _entering(args, kwargs)
        if tensor is None:
            raise SiteError(f"module {place.path!r} takes no tensor; ask for another site")
        moment = None if place.plain else Moment(module, tensor, None, None, state.frame.batch)
        new = state.visit(tensor, state.due(place) if place.numbered else place.spots, moment)
        if place.remember:
            state.bases[place.path] = new
        state.stop_if_done()
        if new is tensor:
            return None
        if isinstance(where, int):
            return (*args[:where], new, *args[where + 1 :]), kwargs
        return args, {**kwargs, where: new}

    return hook


def run_planned(
    plan: Plan,
    call: Callable[[], Any],
    visitors: Sequence[Visitor],
    frame: Frame,
    *,
    wanted: Collection[Site] | None,
) -> Any:
    """Run ``call`` with the visitors in place; what it returns, or None if it was stopped.

    Parameters
    ----------
    plan
        Where the visits are made; ``visitors[i]`` visits ``plan.sites[i]``.
    call
        The forward pass.
    frame
        The batch under way.
    wanted
        Stop once all these sites have been visited; None runs to the end.

    Raises
    ------
    SiteError
        If the pass ran to its end without reaching a visited site (an edit there would have done nothing),
        or a site's tensor has other axes than its name promises.
    """
    state = Pass(visitors, frame, wanted)
    handles = []
    stack = _PASSES.setdefault(state.owner, [])
    stack.append(state)
    try:
        for place in plan.places:
            assert place.module is not None  # a plan without modules is for another machine
            if place.side == "in":
                handles.append(
                    place.module.register_forward_pre_hook(_in_hook(place, state), with_kwargs=True)
                )
            else:
                handles.append(place.module.register_forward_hook(_out_hook(place, state)))
        with inside_attention(plan, state):
            out = call()
    except Stop:
        return None
    finally:
        stack.remove(state)
        if not stack:
            _PASSES.pop(state.owner, None)
        for handle in handles:
            handle.remove()
    check_all_made(plan.sites, state.made)
    return out


def check_all_made(sites: Sequence[Site], made: Collection[Site]) -> None:
    """SiteError naming the sites that a whole pass never reached."""
    missed = [str(site) for site in sites if site not in made]
    if missed:
        raise SiteError(
            f"the forward pass never reached {', '.join(missed[:4])}: nothing was captured or edited there"
        )


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run in evaluation mode (no dropout), and give a module that was in training mode back as it was."""
    training = [m for m in modules if m.training]
    if not training:
        yield
        return
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


def check_finite(module: nn.Module) -> None:
    """Raise :class:`CheckError` naming the first parameter that holds a NaN or an infinity."""
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not parameter.is_meta and not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise CheckError(
                f"weights hold {bad} non-finite values in {name!r} {list(parameter.shape)}; first such parameter"
            )
