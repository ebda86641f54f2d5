"""The plain ``nn.Module`` adapter, and the base of every adapter that runs on torch hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from interp.errors import ModelError
from interp.frames import Frame, Inputs
from interp.models.anatomy import Anatomy
from interp.models.base import Model
from interp.models.ids import explain_ids
from interp.models.running import (
    Plan,
    Visit,
    Visitor,
    check_finite,
    evaluating,
    first_tensor,
    plan_of,
    run_planned,
)
from interp.models.taps import WHOLE, Tap, taps_of
from interp.sites import Site, SiteTable

__all__ = ["HookedModel"]


class HookedModel(Model):
    """Any ``nn.Module``: sites by module path, and the whole vocabulary if it has an :class:`Anatomy`.

    A module's ``anatomy()`` method, where it has one, is asked for the description.
    """

    backend = "torch"

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str | None = None,
        anatomy: Anatomy | None = None,
        tokenizer: Any = None,
    ) -> None:
        check_finite(module)
        if anatomy is None and callable(getattr(module, "anatomy", None)):
            anatomy = module.anatomy()  # type: ignore[operator]
        self.taps: dict[Site, Tap] = taps_of(anatomy) if anatomy else {}
        self._ran_once: set[tuple[Site, tuple]] = set()
        self._canonical = {(t.path, t.side): s for s, t in self.taps.items() if t.view is WHOLE}
        self._plans: dict[tuple[tuple[Site, ...], bool], Plan] = {}
        self._modules = dict(module.named_modules(remove_duplicate=False))
        paths = list(_path_sites(module))
        listed = self.taps or {site: None for site in paths if site.kind == "module"}
        table = ModuleSiteTable(
            listed, paths=[s for s in paths if s not in listed], heads=_head_counts(anatomy)
        )
        super().__init__(
            module, name=name or type(module).__name__, anatomy=anatomy, table=table, tokenizer=tokenizer
        )

    @property
    def n_ctx(self) -> int | None:
        """The length of a learned position embedding, where the anatomy names one."""
        if self.anatomy is None or self.anatomy.pos_embed is None:
            return None
        embed = self.module.get_submodule(self.anatomy.pos_embed)
        return embed.num_embeddings if isinstance(embed, nn.Embedding) else None

    def tap(self, site: Site) -> Tap:
        """Where ``site`` (of every head) is in the module tree."""
        found = self.taps.get(site)
        if found is not None:
            return found
        if site.path is None:
            return self.taps[site.whole]
        path, call = _split_call(site.path)
        return Tap(path, "in" if site.kind == "module_in" else "out", call=call)

    def rank(self, site: Site) -> int:
        """Where the pass reaches a site; a module path ranks like the canonical site at the same place."""
        if site.path is not None and self.taps:
            tap = self.tap(site)
            site = self._canonical.get((tap.path, tap.side), site)
        return self.sites.rank(site)

    def run(
        self,
        inputs: Inputs,
        frame: Frame,
        visits: Sequence[Visit],
        *,
        wanted: Collection[Site] | None,
        cache: Any = None,
    ) -> Any:
        visits = self.sequence(visits)
        learning: set[tuple[Site, tuple]] = set()
        if wanted and any(s.path is not None for s in wanted):
            shape = tuple(a.shape for a in inputs.args if isinstance(a, Tensor))
            learning = {(s, shape) for s in wanted if s.path is not None} - self._ran_once
        if learning:  # only a whole pass can tell whether a module runs more than once
            wanted = None
        looking = all(getattr(visitor, "reads_only", False) for _, visitor in visits)
        plan = self._plan(tuple(site for site, _ in visits), looking)
        with evaluating(self._modules.values()):
            try:
                out = self._run_plan(plan, [visitor for _, visitor in visits], inputs, frame, wanted, cache)
            except IndexError:
                explain_ids(self, inputs.ids)
                raise
        self._ran_once.update(learning)
        return out

    def run_part(self, call: Callable[[], Any], frame: Frame, visits: Sequence[Visit]) -> Any:
        """``call``, a part of the forward pass run by hand, with visitors at sites that it reaches; what it returns.

        Raises
        ------
        SiteError
            It never reached one of the sites.
        """
        visits = self.sequence(visits)
        looking = all(getattr(visitor, "reads_only", False) for _, visitor in visits)
        plan = self._plan(tuple(site for site, _ in visits), looking)
        with evaluating(self._modules.values()), self._inside(plan):
            return run_planned(plan, call, [visitor for _, visitor in visits], frame, wanted=None)

    def _inside(self, plan: Plan) -> AbstractContextManager[None]:
        """What must hold while a plan with visits inside attention functions runs."""
        return nullcontext()

    def _plan(self, sites: tuple[Site, ...], looking: bool) -> Plan:
        key = (sites, looking)
        if key not in self._plans:
            if len(self._plans) > 64:  # a sweep over single sites must not grow it for ever
                self._plans.clear()
            tapped = [(site, self.tap(site)) for site in sites]
            self._plans[key] = plan_of(self._modules.__getitem__, tapped, looking=looking)
        return self._plans[key]

    def _run_plan(
        self,
        plan: Plan,
        visitors: Sequence[Visitor],
        inputs: Inputs,
        frame: Frame,
        wanted: Collection[Site] | None,
        cache: Any,
    ) -> Any:
        with self._inside(plan):
            return run_planned(
                plan, lambda: self.forward(inputs, frame, cache), visitors, frame, wanted=wanted
            )

    def forward(self, inputs: Inputs, frame: Frame, cache: Any) -> Any:
        """The forward pass itself; returns the logits."""
        if inputs.padding is not None:
            raise ModelError(f"{self.name} is a plain module and takes no mask: give sequences of one length")
        out = self.module(*inputs.args)
        tensor = first_tensor(out)
        if tensor is None:
            raise ModelError(f"{self.name} returned {type(out).__name__}, which holds no tensor")
        return tensor


class ModuleSiteTable(SiteTable):
    """A site table that also answers to single calls of a module, ``encoder#1`` (counted from 0)."""

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site) and (super().__contains__(site) or self._base(site) is not None)

    def rank(self, site: Site) -> int:
        base = self._base(site)
        return super().rank(base if base is not None else site)

    def _check(self, site: Site) -> None:
        if self._base(site) is None:
            super()._check(site)

    def _base(self, site: Site) -> Site | None:
        if site.path is None or "#" not in site.path:
            return None
        base = Site(kind=site.kind, path=_split_call(site.path)[0])
        return base if super().__contains__(base) else None


def _split_call(path: str) -> tuple[str, int | None]:
    stem, _, call = path.rpartition("#")
    return (stem, int(call)) if stem and call.isdigit() else (path, None)


def _path_sites(module: nn.Module) -> Iterable[Site]:
    """Every module's output and input, inner modules before the ones that hold them (about forward order)."""
    names = [name for name, _ in module.named_modules() if name]
    for name in sorted(names, key=lambda n: _closing(n, names)):
        yield Site(kind="module_in", path=name)
        yield Site(kind="module", path=name)


def _closing(name: str, names: Sequence[str]) -> int:
    """The rank of the last module inside ``name``: a module's output is ready once its parts have run."""
    return max(i * 1000 - n.count(".") for i, n in enumerate(names) if n == name or n.startswith(name + "."))


def _head_counts(anatomy: Anatomy | None) -> dict[Site, int]:
    counts: dict[Site, int] = {}
    for layer, block in enumerate(anatomy.blocks if anatomy else ()):
        if block.attn:
            for kind in ("q", "rot_q", "attn_scores", "pattern", "z", "result"):
                counts[Site(kind=kind, layer=layer)] = block.attn.n_heads
            for kind in ("k", "rot_k", "v"):
                counts[Site(kind=kind, layer=layer)] = block.attn.n_kv_heads
    return counts
