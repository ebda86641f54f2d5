"""The nnsight adapter: the only file that imports nnsight.

Sites are found on the module tree like the plain adapter's; the pass itself runs inside an nnsight
trace, here or (``remote=True``) on NDIF. Module outputs are read whole, whatever they are wrapped in:
under transformers 5 a block returns a bare tensor, where the customary ``.output[0]`` would silently
drop the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from interp.errors import ModelError, SiteError
from interp.frames import Frame, Inputs
from interp.models.families import anatomy_of
from interp.models.hf import check_attention, context_length, first_position, our_attention, positions_of
from interp.models.hooked import HookedModel
from interp.models.running import (
    Pass,
    Plan,
    Visitor,
    check_all_made,
    first_tensor,
    inside_attention,
    with_first_tensor,
)
from interp.models.taps import Moment
from interp.sites import Site

__all__ = ["NNsightModel", "load"]


def load(
    what: Any, *, name: str | None = None, tokenizer: Any = None, remote: bool | str = False
) -> NNsightModel:
    """An nnsight model as it is, or one made around a module (which nnsight leaves untouched)."""
    import nnsight
    from nnsight.modeling.mixins.remotable import Remotable

    if not type(what).__module__.startswith("nnsight"):
        config = getattr(what, "config", None)
        if name is None:
            name = getattr(config, "_name_or_path", "") or type(what).__name__
        what = nnsight.NNsight(what)
    if remote and not isinstance(what, Remotable):
        raise ModelError(
            "remote runs need a model that NDIF knows: load nnsight.TransformersModel('owner/name') with remote=True"
        )
    return NNsightModel(
        what, name=name, tokenizer=tokenizer or getattr(what, "tokenizer", None), remote=remote
    )


class NNsightModel(HookedModel):
    """A model run inside nnsight traces.

    ``remote=True`` sends every pass to NDIF (an API key is needed, see nnsight's documentation): captured
    tensors come back over the network, so capture few sites and positions. Edits are sent by value.
    ``remote="local"`` goes the same way without a server.
    """

    backend = "nnsight"

    def __init__(self, traced: Any, *, name: str | None, tokenizer: Any, remote: bool | str) -> None:
        module: nn.Module = traced._module
        self.traced = traced
        self.remote = remote
        config = getattr(module, "config", None)
        anatomy = anatomy_of(module, config) if config is not None else None
        super().__init__(module, name=name or type(module).__name__, anatomy=anatomy, tokenizer=tokenizer)
        inside = [site for site, tap in self.taps.items() if tap.interface]
        if remote and inside:  # out of reach on another machine
            for site in inside:
                del self.taps[site]
            self.sites = self.sites.without(inside)
        elif inside:
            self.inert.update(check_attention(module, self.taps))
        self._config = config

    @property
    def n_ctx(self) -> int | None:
        return super().n_ctx if self._config is None else context_length(self._config, first_position(self))

    def _run_plan(
        self,
        plan: Plan,
        visitors: Sequence[Visitor],
        inputs: Inputs,
        frame: Frame,
        wanted: Collection[Site] | None,
        cache: Any,
    ) -> Any:
        if cache is not None:
            raise ModelError(
                "the nnsight backend continues no sequences with a cache: generate(..., use_cache=False)"
            )
        if any(place.numbered for place in plan.places):
            raise SiteError("the nnsight backend does not tell single calls of a module apart")
        options: dict[str, Any] = {"use_cache": False} if self._config is not None else {}
        if inputs.padding is not None:
            options["attention_mask"] = inputs.padding.long()
            if inputs.left_padded:
                options["position_ids"] = positions_of(inputs.padding, first_position(self))
        if self.remote:
            return self._run_remotely(
                plan, visitors, inputs, frame, wanted is None, {**options, "remote": self.remote}
            )
        state, out = Pass(visitors, frame, None), None
        whole = wanted is None or bool(plan.inside)  # where attention functions are visited, run to the end
        with ExitStack() as stack:
            if plan.inside:
                stack.enter_context(our_attention(self.module))
                stack.enter_context(inside_attention(plan, state))
            with self.traced.trace(*inputs.args, **options) as tracer:
                _walk(self.traced, plan, state)
                if whole:
                    out = self.traced.output.save()
                else:
                    tracer.stop()
        check_all_made(plan.sites, state.made)
        return _logits(out) if whole else None

    def _run_remotely(
        self,
        plan: Plan,
        visitors: Sequence[Visitor],
        inputs: Inputs,
        frame: Frame,
        whole: bool,
        options: dict[str, Any],
    ) -> Any:
        """Edits run where the model is; captured tensors are brought back and shown to their visitors here."""
        import nnsight

        reads = [index for index, visitor in enumerate(visitors) if getattr(visitor, "reads_only", False)]
        there = [_bring if index in reads else visitor for index, visitor in enumerate(visitors)]
        state, args, traced = Pass(there, frame, None), inputs.args, self.traced
        # the weights stay here
        plan = replace(plan, places=tuple(replace(place, module=None) for place in plan.places))
        out: Any = None
        nnsight.register("interp")  # this package travels with the request: it is not installed there
        with traced.trace(*args, **options) as tracer:
            values = nnsight.save(_walk(traced, plan, state, reads))
            if whole:
                out = traced.output.save()
            else:
                tracer.stop()
        for index in reads:
            visitors[index](values[index])
        return _logits(out) if whole else None


def _logits(out: Any) -> Any:
    logits = getattr(out, "logits", None)
    return first_tensor(out) if logits is None else logits


def _bring(tensor: Tensor) -> None:
    """Stands for a capture while the pass runs elsewhere."""


def _envoy(traced: Any, path: str) -> Any:
    """The envoy of a module; one named like an nnsight property (BERT's ``output``) stands under a prefix."""
    for part in path.split("."):
        moved = vars(traced).get(f"{traced.OVERLOAD_PREFIX}{part}")
        traced = getattr(traced, part) if moved is None else moved
    return traced


def _walk(traced: Any, plan: Plan, state: Pass, brought: Sequence[int] = ()) -> dict[int, Tensor]:
    """Inside a trace: visit each place, in the order the pass reaches them; the tensors of ``brought`` visits.

    A trace reads each value once and in order, so a block's input that is needed further down is read
    when the first place inside the block comes up.
    """
    needed = {place.base for place in plan.places if place.base}
    values: dict[int, Tensor] = {}
    for place in plan.places:
        if not place.spots:
            continue
        for base in sorted(
            b for b in needed if b not in state.bases and f"{place.path}.".startswith(b + ".")
        ):
            state.bases[base] = _envoy(traced, base).input
        envoy = _envoy(traced, place.path)
        asked = place.side == "in" or any(spot.tap.view.reads_input for spot in place.spots)
        entering = envoy.input if asked else None  # asking later than the output would be out of order
        held = entering if place.side == "in" else envoy.output
        tensor = first_tensor(held)
        if tensor is None:
            raise SiteError(
                f"module {place.path!r} holds {type(held).__name__}, which has no tensor; ask for one inside it"
            )
        base = state.bases.get(place.base) if place.base else None
        moment = Moment(envoy._module, entering, tensor, base, state.frame.batch)
        new = tensor
        for spot in place.spots:
            if spot.index in brought:
                values[spot.index] = moment.shown(spot.tap.view, new)
            new = state.visit(new, [spot], moment)
        if place.remember:
            state.bases[place.path] = new
        if new is not tensor:
            if place.side == "in":
                envoy.input = new
            else:
                envoy.output = with_first_tensor(held, new)
    return values
