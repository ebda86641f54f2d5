"""The plain ``nn.Module`` adapter, and the base of every adapter that runs on torch hooks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from interp.edits import Frame
from interp.errors import ModelError, SiteError
from interp.models.anatomy import Anatomy
from interp.models.base import Model
from interp.models.inputs import Inputs
from interp.models.running import Tapped, Visit, check_finite, evaluating, first_tensor, run_visited
from interp.models.taps import Tap, taps_of
from interp.sites import Site, SiteTable

__all__ = ["HookedModel", "checked"]


class HookedModel(Model):
    """Any ``nn.Module``: sites by module path, and the whole vocabulary if it has an :class:`Anatomy`.

    A module's ``anatomy()`` method, where it has one, is asked for the description.
    """

    backend = "torch"

    def __init__(self, module: nn.Module, *, name: str | None = None, anatomy: Anatomy | None = None, tokenizer: Any = None) -> None:
        check_finite(module)
        if anatomy is None and callable(getattr(module, "anatomy", None)):
            anatomy = module.anatomy()  # type: ignore[operator]
        self.taps: dict[Site, Tap] = taps_of(anatomy, module) if anatomy else {}
        self._ran_once: set[Site] = set()
        paths = list(_path_sites(module))
        listed = self.taps or {site: None for site in paths if site.kind == "module"}
        table = ModuleSiteTable(listed, paths=[s for s in paths if s not in listed], heads=_head_counts(anatomy))
        super().__init__(module, name=name or type(module).__name__, anatomy=anatomy, table=table, tokenizer=tokenizer)

    @property
    def n_ctx(self) -> int | None:
        """The length of a learned position embedding, where the anatomy names one."""
        if self.anatomy is None or self.anatomy.pos_embed is None:
            return None
        embed = self.module.get_submodule(self.anatomy.pos_embed)
        return embed.num_embeddings if isinstance(embed, nn.Embedding) else None

    def tap(self, site: Site) -> Tap:
        """Where ``site`` (of every head) is in the module tree."""
        if site.path is None:
            return self.taps[site.whole]
        path, call = _split_call(site.path)
        return Tap(path, "in" if site.kind == "module_in" else "out", call=call)

    def run(
        self, inputs: Inputs, frame: Frame, visits: Sequence[Visit], *, wanted: Collection[Site] | None, cache: Any = None
    ) -> Any:
        tapped: list[Tapped] = [(site, self.tap(site), visitor) for site, visitor in self.sequence(visits)]
        learning = {site for site in wanted or () if site.path is not None and site not in self._ran_once}
        if learning:  # only a whole pass can tell whether a module runs more than once
            wanted = None
        with evaluating(self.module):
            out = self._run_tapped(inputs, frame, tapped, wanted, cache)
        self._ran_once |= learning
        return out

    def _run_tapped(
        self, inputs: Inputs, frame: Frame, tapped: Sequence[Tapped], wanted: Collection[Site] | None, cache: Any
    ) -> Any:
        def call() -> Any:
            return self.forward(inputs, frame, cache)

        visits = [(site, tap, checked(site, visitor, frame)) for site, tap, visitor in tapped]
        return run_visited(self.module, call, visits, batch=frame.batch, wanted=wanted)

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


def checked(site: Site, visitor: Any, frame: Frame) -> Any:
    """The visitor behind a check that a canonical site's tensor has the axes its name promises."""
    axes = site.whole.axes
    if axes is None:
        return visitor

    def visit(value: Tensor) -> Tensor | None:
        if value.ndim != len(axes) or value.shape[0] != frame.batch or (axes[1] == "pos" and value.shape[1] != frame.pos):
            raise SiteError(
                f"{site} holds {list(value.shape)} {value.dtype}; its axes are {list(axes)} "
                f"with batch {frame.batch} and pos {frame.pos}"
            )
        return visitor(value)

    return visit
