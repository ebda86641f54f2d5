"""The TransformerLens adapter (TransformerBridge, version 4): the only file that imports transformer_lens.

The bridge rewrites the Hugging Face module it wraps, so a module of yours is copied first. Which of
its hook points really fire, and in which order, is found by one probe pass; whether edits at attention
scores and patterns reach the logits is tried, and those that do not are refused by name.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from interp.edits import edit
from interp.errors import ModelError
from interp.frames import Frame, Inputs
from interp.models.base import Model
from interp.models.ids import explain_ids
from interp.models.running import Stop, Visit, check_all_made, check_finite, evaluating, wrong_axes
from interp.sites import KINDS, Site, SiteTable

__all__ = ["BridgeModel", "load"]

_BERT = {"attn_out": "attn.o.hook_out", "resid_mid": "ln1.hook_out", "mlp_out": "mlp.out.hook_out"}
"""On BERT the bridge's names of these kinds mean other tensors (behind the norms)."""
_MAMBA = {"ln1_scale": "norm.hook_scale", "ln1_normalized": "norm.hook_normalized", "ln1": "norm.hook_out"}


def load(what: Any, *, name: str | None, tokenizer: Any, owned: bool) -> BridgeModel:
    """A bridge as it is, or one built around a (copied) Hugging Face module."""
    with _quiet_import():
        from transformer_lens.model_bridge import TransformerBridge
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    if isinstance(what, TransformerBridge):
        return BridgeModel(what, name=name, tokenizer=tokenizer)
    if not hasattr(what, "config"):
        raise ModelError(f"TransformerLens bridges transformers models; got {type(what).__name__}")
    module = what if owned else copy.deepcopy(what)
    names = list(module.state_dict())
    module.set_attn_implementation("eager")  # without it scores and patterns never fire
    with _quiet_import():
        try:
            bridge = build_bridge_from_module(
                module, type(module).__name__, hf_config=module.config, tokenizer=None
            )
        except (ValueError, KeyError, NotImplementedError) as error:
            raise ModelError(
                f"TransformerLens cannot bridge {type(what).__name__}: {str(error)[:200]}"
            ) from error
    label = name or getattr(what.config, "_name_or_path", "") or what.config.model_type
    return BridgeModel(bridge.eval(), name=label, tokenizer=tokenizer, weight_names=names)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Importing the bridge lowers transformers' logger and pushes warning filters for the whole process: undo that."""
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logger.setLevel(level)


class BridgeModel(Model):
    """A TransformerBridge behind the common interface. Its sites are the hook points that fire."""

    backend = "transformer_lens"

    def __init__(
        self,
        bridge: nn.Module,
        *,
        name: str | None = None,
        tokenizer: Any = None,
        weight_names: Sequence[str] = (),
    ) -> None:
        """``weight_names``: what the weights were called before the bridge renamed them, for the fingerprint."""
        check_finite(bridge)
        self._weight_names = tuple(weight_names)
        self.bridge: Any = bridge
        cfg = self.bridge.cfg
        self.family = str(getattr(cfg, "architecture", "")).lower()
        super().__init__(
            bridge,
            name=name or str(getattr(cfg, "model_name", "bridge")),
            anatomy=None,
            table=SiteTable(()),
            tokenizer=tokenizer or getattr(bridge, "tokenizer", None),
        )
        self._hooks: dict[Site, Any] = {}
        self._find_hooks()
        self._find_inert()

    def _weights(self) -> Mapping[str, Tensor]:
        held = {
            name.replace("._original_component", ""): tensor
            for name, tensor in self.bridge.original_model.state_dict().items()
        }
        known = {name: held[name] for name in self._weight_names if name in held}
        return known if known and len(known) == len(self._weight_names) else held

    @property
    def n_layers(self) -> int:
        return int(self.bridge.cfg.n_layers)

    @property
    def d_model(self) -> int:
        return int(self.bridge.cfg.d_model)

    @property
    def n_heads(self) -> int | None:
        has_heads = any(site.kind == "z" for site in self.sites)
        return int(self.bridge.cfg.n_heads) if has_heads else None

    @property
    def n_ctx(self) -> int | None:
        n_ctx = getattr(self.bridge.cfg, "n_ctx", None)
        return int(n_ctx) if n_ctx and n_ctx > 0 else None

    @property
    def d_vocab(self) -> int | None:
        return int(self.bridge.cfg.d_vocab)

    @property
    def causal(self) -> bool:
        return "bert" not in self.family

    def _find_hooks(self) -> None:
        """The hook points that fire, in the order in which they do, under our names and under the bridge's."""
        points: dict[str, Any] = dict(self.bridge.hook_dict)
        names = {id(point): name for name, point in points.items()}
        order: list[int] = []

        def note(point: Any) -> Callable:
            return lambda tensor, hook: order.append(id(point))

        self._run_hooked(
            Inputs((self.probe().ids,)), [(point, note(point)) for point in _distinct(points.values())]
        )
        fired = {key: rank for rank, key in reversed(list(enumerate(order)))}
        found: dict[Site, Any] = {}
        for site in self._candidates():
            point = points.get(self._hook_name(site))
            if point is not None and id(point) in fired:
                found[site] = point
        canonical = sorted(found, key=lambda site: (fired[id(found[site])], site))
        others = {Site.parse(n): p for n, p in points.items() if id(p) in fired and n in names.values()}
        others = {site: point for site, point in others.items() if site.path is not None}
        self._hooks = {**others, **found}
        heads = {s: self._n_heads_at(s) for s in canonical if s.head_axis is not None}
        paths = sorted(others, key=lambda site: fired[id(others[site])])
        self.sites = SiteTable(canonical, paths=paths, heads=heads)

    def _candidates(self) -> Iterator[Site]:
        for kind, (template, _) in KINDS.items():
            if "{p}" in template or kind == "result":
                continue
            for layer in range(self.n_layers) if "{l}" in template else (None,):
                yield Site(kind=kind, layer=layer)

    def _hook_name(self, site: Site) -> str:
        if "bert" in self.family and site.kind == "embed":
            return "embed.hook_out"  # its hook_embed lies behind the embedding's norm
        special = _BERT if "bert" in self.family else _MAMBA if "mamba" in self.family else {}
        return f"blocks.{site.layer}.{special[site.kind]}" if site.kind in special else str(site)

    def _n_heads_at(self, site: Site) -> int:
        cfg = self.bridge.cfg
        kv = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        return int(kv if site.kind in ("k", "v", "rot_k") else cfg.n_heads)

    def _find_inert(self) -> None:
        """Try an edit at each layer's scores and pattern; remember those that do nothing."""
        for site in self.sites:
            if site.kind == "resid_mid" and "bert" not in self.family:
                self.inert[site] = (
                    "the bridge's hook reaches the MLP's branch only, not the stream that goes on"
                )
        tokens = self.probe()
        plain = self.logits(tokens)
        kinds = [site for site in self.sites if site.kind in ("attn_scores", "pattern")]
        shown = self.capture(tokens, kinds) if kinds else {}
        for site in kinds:
            pattern = shown.get(Site(kind="pattern", layer=site.layer))
            if (
                site.kind == "attn_scores"
                and pattern is not None
                and not torch.allclose(shown[site].softmax(-1), pattern, atol=1e-4)
            ):
                self._hooks.pop(site)  # what it shows are no scores (BERT: the pattern once more)
                self.sites = self.sites.without([site])
                continue
            if site.kind in ("attn_scores", "pattern"):
                changed = self.logits(tokens, edits=[edit(site, lambda t: t * 0.5)])
                if torch.equal(changed, plain):
                    self.inert[site] = (
                        "the bridge shows this tensor but goes on with its own (use backend='transformers')"
                    )

    def run(
        self,
        inputs: Inputs,
        frame: Frame,
        visits: Sequence[Visit],
        *,
        wanted: Collection[Site] | None,
        cache: Any = None,
    ) -> Any:
        left = None if wanted is None else {site.whole for site in wanted}
        made: set[Site] = set()

        def hooked(site: Site, visitor: Any, last: bool) -> Callable:
            axes = KINDS[site.kind][1] if site.path is None else None

            def hook(tensor: Tensor, hook: Any) -> Tensor | None:
                if axes and (tensor.ndim != len(axes) or tensor.shape[0] != frame.batch):
                    raise wrong_axes(site, tensor, frame)
                new = visitor(tensor)
                made.add(site)
                if left is not None and last:
                    left.discard(site.whole)
                    if not left:
                        raise Stop
                return new

            return hook

        ordered = self.sequence(visits)
        last = {site.whole: rank for rank, (site, _) in enumerate(ordered)}
        points = [
            (self._hooks[site.whole], hooked(site, visitor, last[site.whole] == rank))
            for rank, (site, visitor) in enumerate(ordered)
        ]
        try:
            out = self._run_hooked(inputs, points)
        except Stop:
            return None
        check_all_made([site for site, _ in ordered], made)
        return out

    def _run_hooked(self, inputs: Inputs, points: Sequence[tuple[Any, Callable]]) -> Any:
        handles = []
        options = {} if inputs.padding is None else {"attention_mask": inputs.padding.long()}
        with evaluating(self.module.modules()), warnings.catch_warnings():
            # it announces that an edited scale or normalisation is recomputed from the edit: that is what is asked
            warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
            try:
                for point, hook in points:
                    handles.append((point, point.add_hook(hook)))
                return self.bridge(inputs.ids, **options)
            except IndexError:
                explain_ids(self, inputs.ids)
                raise
            finally:
                for point, handle in handles:
                    handle.hook.remove()
                    point.fwd_hooks.remove(handle)


def _distinct(points: Any) -> list[Any]:
    return list({id(point): point for point in points}.values())
