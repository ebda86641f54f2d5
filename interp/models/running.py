"""One forward pass with visitors: the plain torch hooks under every capture and every edit.

Hooks are put on for one pass, only on the modules that are visited, and always come off, also
after an exception. Nothing of the caller's module is wrapped, renamed or left changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import CheckError, SiteError
from interp.models.taps import Moment, Tap, Whole
from interp.sites import Site

__all__ = ["ATTENTION", "Stages", "Stop", "Visit", "Visitor", "check_finite", "evaluating", "first_tensor", "run_visited", "with_first_tensor"]

Visitor = Callable[[Tensor], Tensor | None]
"""Is shown a site's tensor; returns what stands there from now on, or None to leave it."""

Visit = tuple[Site, Visitor]

Tapped = tuple[Site, Tap, Visitor]

_WHOLE = Whole()


class Stop(Exception):
    """Raised inside a hook once nothing further down the pass was asked for."""


class Pass:
    """The state of one pass: how many captures are still to come, which visits have been made."""

    __slots__ = ("bases", "batch", "calls", "left", "made", "owner")

    def __init__(self, batch: int, wanted: Collection[Site] | None) -> None:
        self.batch = batch
        self.left = None if wanted is None else set(wanted)  # captures still to come; None: run to the end
        self.made: set[Site] = set()
        self.bases: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.owner = threading.get_ident()

    def seen(self, site: Site) -> None:
        self.made.add(site)
        if self.left is not None:
            self.left.discard(site)

    def stop_if_done(self) -> None:
        if self.left is not None and not self.left:
            raise Stop


class Stages:
    """The visits inside one attention function: which stages are asked for, and showing them."""

    __slots__ = ("_state", "_visits")

    def __init__(self, state: Pass) -> None:
        self._state = state
        self._visits: dict[str, list[Tapped]] = {}

    def add(self, visit: Tapped) -> None:
        self._visits.setdefault(visit[1].side, []).append(visit)

    def __contains__(self, side: str) -> bool:
        return side in self._visits

    def show(self, side: str, tensor: Tensor) -> Tensor:
        """Show ``tensor`` to the visitors of a stage; what stands there afterwards."""
        if side not in self._visits:
            return tensor
        tensor = visit_tensor(tensor, self._visits[side], None, self._state)
        self._state.stop_if_done()
        return tensor


ATTENTION: ContextVar[Mapping[nn.Module, Stages] | None] = ContextVar("attention stages", default=None)
"""The visits inside attention functions of the pass under way, by attention module."""


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
    changed = type(value)(**value)
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


def visit_tensor(tensor: Tensor, visits: Sequence[Tapped], moment: Moment | None, state: Pass) -> Tensor:
    """Show ``tensor`` to each visitor in turn and return what stands there afterwards."""
    for site, tap, visitor in visits:
        if tap.view is _WHOLE or moment is None:
            new = visitor(tensor)
            if new is not None:
                tensor = new
        else:
            old = tap.view.read(tensor, moment)
            new = visitor(old)
            if new is not None:
                tensor = tap.view.write(tensor, old, new, moment)
        state.seen(site)
    return tensor


def _due(visits: Sequence[Tapped], path: str, state: Pass) -> Sequence[Tapped]:
    """The visits meant for this call of a module that may run several times in one pass."""
    if all(tap.call is None for _, tap, _ in visits):
        return visits
    call = state.calls.get(path, 0)
    state.calls[path] = call + 1
    return [visit for visit in visits if visit[1].call in (None, call)]


def _out_hook(path: str, visits: Sequence[Tapped], state: Pass) -> Callable:
    plain = all(tap.view is _WHOLE for _, tap, _ in visits)
    base = next((tap.base for _, tap, _ in visits if tap.base), None)

    def hook(module: nn.Module, args: tuple, out: Any) -> Any:
        if threading.get_ident() != state.owner:
            return None
        tensor = out if isinstance(out, Tensor) else first_tensor(out)
        if tensor is None:
            raise SiteError(f"module {path!r} returns {type(out).__name__}, which holds no tensor; ask for one inside it")
        moment = None
        if not plain:
            moment = Moment(module, first_tensor(args), tensor, state.bases.get(base) if base else None, state.batch)
        new = visit_tensor(tensor, _due(visits, path, state), moment, state)
        state.stop_if_done()
        return None if new is tensor else with_first_tensor(out, new)

    return hook


def _in_hook(path: str, visits: Sequence[Tapped], state: Pass, remember: bool) -> Callable:
    plain = all(tap.view is _WHOLE for _, tap, _ in visits)

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != state.owner:
            return None
        place, tensor = _entering(args, kwargs)
        if tensor is None:
            raise SiteError(f"module {path!r} takes no tensor; ask for another site")
        moment = None if plain else Moment(module, tensor, None, None, state.batch)
        new = visit_tensor(tensor, _due(visits, path + ":in", state), moment, state)
        if remember:
            state.bases[path] = new
        state.stop_if_done()
        if new is tensor:
            return None
        if isinstance(place, int):
            return (*args[:place], new, *args[place + 1 :]), kwargs
        return args, {**kwargs, place: new}

    return hook


def run_visited(
    root: nn.Module, call: Callable[[], Any], visits: Sequence[Tapped], *, batch: int, wanted: Collection[Site] | None
) -> Any:
    """Run ``call`` with the visitors in place; what it returns, or None if it was stopped.

    Parameters
    ----------
    root, call
        The module whose submodules the taps name, and the forward pass on it.
    visits
        Site, tap and visitor in forward order; visits to one place are made in the given order.
    batch
        Rows of the batch, for taps that show a tensor computed once for all rows.
    wanted
        Stop once all these sites have been visited; None runs to the end.

    Raises
    ------
    SiteError
        If the pass ran to its end without reaching a visited site: an edit there would have done nothing.
    """
    state = Pass(batch, wanted)
    places: dict[tuple[str, str], list[Tapped]] = {}
    inside: dict[nn.Module, Stages] = {}
    for visit in visits:
        tap = visit[1]
        if tap.interface:
            inside.setdefault(root.get_submodule(tap.path), Stages(state)).add(visit)
        else:
            places.setdefault((tap.path, tap.side), []).append(visit)
    bases = {tap.base for _, tap, _ in visits if tap.base}  # whose inputs must be remembered
    for path in bases:
        places.setdefault((path, "in"), [])
    handles = []
    token = ATTENTION.set(inside) if inside else None
    try:
        for (path, side), group in places.items():
            module = root.get_submodule(path) if path else root
            if side == "in":
                hook = _in_hook(path, group, state, path in bases)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(_out_hook(path, group, state)))
        try:
            out = call()
        except Stop:
            return None
    finally:
        for handle in handles:
            handle.remove()
        if token is not None:
            ATTENTION.reset(token)
    missed = [str(site) for site, _, _ in visits if site not in state.made]
    if missed:
        raise SiteError(f"the forward pass never reached {', '.join(missed[:4])}: nothing was captured or edited there")
    return out


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run in evaluation mode (no dropout), and give a module that was in training mode back as it was."""
    if not module.training:
        yield
        return
    training = [m for m in module.modules() if m.training]
    module.eval()
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
            raise CheckError(f"weights hold {bad} non-finite values in {name!r} {list(parameter.shape)}; first such parameter")
