"""The nnsight adapter: the only file that imports nnsight.

Sites are found on the module tree like the plain adapter's; the pass itself runs inside an nnsight
trace, here or (``remote=True``) on NDIF. Module outputs are read whole, whatever they are wrapped in:
under transformers 5 a block returns a bare tensor, where the customary ``.output[0]`` would silently
drop the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from interp.edits import Frame
from interp.errors import ModelError, SiteError
from interp.models.families import anatomy_of
from interp.models.hf import check_attention, our_attention
from interp.models.hooked import HookedModel, checked
from interp.models.inputs import Inputs
from interp.models.running import ATTENTION, Pass, Stages, Tapped, Visitor, first_tensor, with_first_tensor
from interp.models.taps import Moment
from interp.sites import Site

__all__ = ["NNsightModel", "load"]


def load(what: Any, *, name: str | None = None, tokenizer: Any = None, remote: bool | str = False) -> NNsightModel:
    """An nnsight model as it is, or one made around a module (which nnsight leaves untouched)."""
    import nnsight

    if not type(what).__module__.startswith("nnsight"):
        config = getattr(what, "config", None)
        if name is None:
            name = getattr(config, "_name_or_path", "") or type(what).__name__
        what = nnsight.NNsight(what)
    return NNsightModel(what, name=name, tokenizer=tokenizer or getattr(what, "tokenizer", None), remote=remote)


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
        inside = check_attention(module, self.taps)
        if remote:
            inside = {s: "it lies inside an attention function, out of reach on a remote model" for s, t in self.taps.items() if t.interface}
        self.inert.update(inside)
        self._config = config

    @property
    def n_ctx(self) -> int | None:
        for key in ("max_position_embeddings", "n_positions", "n_ctx"):
            value = getattr(self._config, key, None)
            if isinstance(value, int) and value > 0:
                return value
        return super().n_ctx

    def _run_tapped(
        self, inputs: Inputs, frame: Frame, tapped: Sequence[Tapped], wanted: Collection[Site] | None, cache: Any
    ) -> Any:
        if cache is not None:
            raise ModelError("the nnsight backend continues no sequences with a cache: generate(..., use_cache=False)")
        options: dict[str, Any] = {"use_cache": False} if self._config is not None else {}
        if inputs.padding is not None:
            options["attention_mask"] = inputs.padding.long()
            if inputs.left_padded:
                options["position_ids"] = (inputs.padding.long().cumsum(-1) - 1).clamp(min=0)
        if self.remote:
            options["remote"] = self.remote
        if self.remote:
            return self._run_remotely(inputs, frame, _grouped(tapped), wanted, options)
        visitors: dict[Site, list[Visitor]] = {}
        for site, _, visitor in tapped:
            visitors.setdefault(site, []).append(checked(site, visitor, frame))
        inside = [(site, tap, checked(site, visitor, frame)) for site, tap, visitor in tapped if tap.interface]
        if wanted is not None and any(site.whole in {s.whole for s, _, _ in inside} for site in wanted):
            wanted = None
        outside = _grouped([visit for visit in tapped if not visit[1].interface])
        with inside_attention(self.module, inside, frame.batch), self.traced.trace(*inputs.args, **options) as tracer:
            _walk(self.traced, outside, visitors, frame.batch)
            if wanted is not None:
                tracer.stop()
            else:
                out = self.traced.output.save()
        if wanted is not None:
            return None
        logits = getattr(out, "logits", None)
        return first_tensor(out) if logits is None else logits

    def _run_remotely(
        self, inputs: Inputs, frame: Frame, groups: Groups, wanted: Collection[Site] | None, options: dict[str, Any]
    ) -> Any:
        """Edits run where the model is; captures are brought back and shown to their visitors here."""
        import nnsight

        there, here = {}, {}
        for _, visits in groups:
            for site, _, visitor in visits:
                (here if getattr(visitor, "reads_only", False) else there).setdefault(site, []).append(visitor)
        whole = wanted is None
        args, traced, batch, brought = inputs.args, self.traced, frame.batch, list(here)
        with traced.trace(*args, **options) as tracer:
            values = nnsight.save(_walk(traced, groups, there, batch, brought))
            if whole:
                out = traced.output.save()
            else:
                tracer.stop()
        for site, visitors in here.items():
            for visitor in visitors:
                checked(site, visitor, frame)(values[str(site)])
        if not whole:
            return None
        logits = getattr(out, "logits", None)
        return first_tensor(out) if logits is None else logits


@contextmanager
def inside_attention(module: nn.Module, inside: Sequence[Tapped], batch: int) -> Iterator[None]:
    """For a local model: the same way into its attention functions that the transformers adapter takes."""
    if not inside:
        yield
        return
    state, stages = Pass(batch, None), {}
    for visit in inside:
        stages.setdefault(module.get_submodule(visit[1].path), Stages(state)).add(visit)
    token = ATTENTION.set(stages)
    try:
        with our_attention(module):
            yield
    finally:
        ATTENTION.reset(token)


Groups = list[tuple[tuple[str, str], list[Tapped]]]


def _grouped(tapped: Sequence[Tapped]) -> Groups:
    """Visits by place, in the order the pass reaches the places: a trace reads each module once, in order."""
    places: dict[tuple[str, str], list[Tapped]] = {}
    for visit in tapped:
        if visit[1].call is not None:
            raise SiteError(f"{visit[0]}: the nnsight backend does not tell single calls of a module apart")
        places.setdefault((visit[1].path, visit[1].side), []).append(visit)
    return list(places.items())


def _envoy(traced: Any, path: str) -> Any:
    """The envoy of a module; one named like an nnsight property (BERT's ``output``) stands under a prefix."""
    for part in path.split("."):
        moved = vars(traced).get(f"{traced.OVERLOAD_PREFIX}{part}")
        traced = getattr(traced, part) if moved is None else moved
    return traced


def _walk(
    traced: Any, groups: Groups, visitors: Mapping[Site, Sequence[Visitor]], batch: int, brought: Sequence[Site] = ()
) -> dict[str, Tensor]:
    """Inside a trace: show each place's tensor to its visitors and put back what they changed."""
    bases: dict[str, Tensor] = {}
    needed = {tap.base for _, visits in groups for _, tap, _ in visits if tap.base}
    values: dict[str, Tensor] = {}
    for (path, side), visits in groups:
        for base in sorted(b for b in needed if b not in bases and (path == b or path.startswith(b + "."))):
            bases[base] = _envoy(traced, base).input
        envoy = _envoy(traced, path)
        asked = side == "in" or any(tap.view.reads_input for _, tap, _ in visits)
        entering = envoy.input if asked else None  # asking later than the output would be out of order
        held = entering if side == "in" else envoy.output
        tensor = first_tensor(held)
        if tensor is None:
            raise SiteError(f"module {path!r} holds {type(held).__name__}, which has no tensor; ask for one inside it")
        base = next((bases[tap.base] for _, tap, _ in visits if tap.base), None)
        moment = Moment(envoy._module, entering, tensor, base, batch)
        new = tensor
        for site, tap in {site: tap for site, tap, _ in visits}.items():
            old = tap.view.read(new, moment)
            if site in brought:
                values[str(site)] = old
            for visitor in visitors.get(site, ()):
                changed = visitor(old)
                if changed is not None and changed is not old:
                    new = tap.view.write(new, old, changed, moment)
                    old = changed
        if new is not tensor:
            if side == "in":
                envoy.input = new
                bases.update({path: new} if path in needed else {})
            else:
                envoy.output = with_first_tensor(held, new)
    return values
