"""Where an activation lives: the one vocabulary of sites, the same for every backend.

A :class:`Site` is a frozen value whose string form is the TransformerLens hook name, the field's
common language (``blocks.3.hook_resid_post``, ``blocks.0.attn.hook_z``). A head is written behind
it (``blocks.0.attn.hook_z[3]``); anything outside the vocabulary is a module path
(``encoder.0``, or ``encoder.0:in`` for what goes in). Read next: ``models/anatomy.py`` says which
modules of an architecture a site stands for, ``capture.py`` visits them.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, total_ordering

from interp.errors import InputError, SiteError, nearest

__all__ = ["KINDS", "Axes", "Site", "SiteTable"]

Axes = tuple[str, ...]

_RESID: Axes = ("batch", "pos", "d_model")
_HEAD: Axes = ("batch", "pos", "head", "d_head")
_MLP: Axes = ("batch", "pos", "d_mlp")
_SCORE: Axes = ("batch", "head", "query", "key")
_SCALE: Axes = ("batch", "pos", "one")

KINDS: dict[str, tuple[str, Axes]] = {
    # kind -> (hook name, axes), in the order in which a forward pass reaches them. {l}: the layer.
    "embed": ("hook_embed", _RESID),
    "pos_embed": ("hook_pos_embed", _RESID),
    "resid_pre": ("blocks.{l}.hook_resid_pre", _RESID),
    "ln1_scale": ("blocks.{l}.ln1.hook_scale", _SCALE),
    "ln1_normalized": ("blocks.{l}.ln1.hook_normalized", _RESID),
    "ln1": ("blocks.{l}.ln1.hook_out", _RESID),
    "attn_in": ("blocks.{l}.hook_{p}_input", ("batch", "pos", "head", "d_model")),
    "q": ("blocks.{l}.attn.hook_q", _HEAD),
    "k": ("blocks.{l}.attn.hook_k", _HEAD),
    "v": ("blocks.{l}.attn.hook_v", _HEAD),
    "rot_q": ("blocks.{l}.attn.hook_rot_q", _HEAD),
    "rot_k": ("blocks.{l}.attn.hook_rot_k", _HEAD),
    "attn_scores": ("blocks.{l}.attn.hook_attn_scores", _SCORE),
    "pattern": ("blocks.{l}.attn.hook_pattern", _SCORE),
    "z": ("blocks.{l}.attn.hook_z", _HEAD),
    "result": ("blocks.{l}.attn.hook_result", ("batch", "pos", "head", "d_model")),
    "attn_out": ("blocks.{l}.hook_attn_out", _RESID),
    "mixer_in": ("blocks.{l}.hook_mixer_in", _RESID),
    "mixer_proj": ("blocks.{l}.mixer.hook_in_proj", ("batch", "pos", "d_proj")),
    "mixer_post": ("blocks.{l}.mixer.out_proj.hook_in", ("batch", "pos", "d_inner")),
    "mixer_out": ("blocks.{l}.hook_mixer_out", _RESID),
    "resid_mid": ("blocks.{l}.hook_resid_mid", _RESID),
    "ln2_scale": ("blocks.{l}.ln2.hook_scale", _SCALE),
    "ln2_normalized": ("blocks.{l}.ln2.hook_normalized", _RESID),
    "ln2": ("blocks.{l}.ln2.hook_out", _RESID),
    "mlp_pre": ("blocks.{l}.mlp.hook_pre", _MLP),
    "mlp_pre_linear": ("blocks.{l}.mlp.hook_pre_linear", _MLP),
    "mlp_post": ("blocks.{l}.mlp.hook_post", _MLP),
    "mlp_out": ("blocks.{l}.hook_mlp_out", _RESID),
    "resid_post": ("blocks.{l}.hook_resid_post", _RESID),
    "ln_final_scale": ("ln_final.hook_scale", _SCALE),
    "ln_final_normalized": ("ln_final.hook_normalized", _RESID),
    "ln_final": ("ln_final.hook_out", _RESID),
    "logits": ("unembed.hook_out", ("batch", "pos", "d_vocab")),
}
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}
_BEFORE_BLOCKS = ("embed", "pos_embed")
_PORTS = ("q", "k", "v")
ALIASES = {"logits": "unembed.hook_out", "embed": "hook_embed", "pos_embed": "hook_pos_embed"}
"""Short names, understood where a model has no module of that name."""

_BLOCK_ALIASES = {"hook_in": "hook_resid_pre", "hook_out": "hook_resid_post"}
_HEAD_SUFFIX = re.compile(r"^(?P<name>.+)\[(?P<head>\d+)\]$")


def _patterns() -> list[tuple[re.Pattern[str], str]]:
    table = []
    for kind, (template, _) in KINDS.items():
        pattern = (
            re.escape(template).replace(r"\{l\}", r"(?P<layer>\d+)").replace(r"\{p\}", "(?P<port>[qkv])")
        )
        table.append((re.compile(f"^{pattern}$"), kind))
    return table


_PATTERNS = _patterns()


@total_ordering
@dataclass(frozen=True)  # no slots: instances in _PARSED travel by value together with the class itself
class Site:
    """Where an activation lives.

    Either a canonical place (``kind`` out of :data:`KINDS`, with its ``layer`` and, where it makes
    sense, a ``head`` or a q/k/v ``port``), or any module's output or input (``kind`` ``"module"``
    or ``"module_in"`` with its ``path``).

    Sites are ordered as a forward pass runs; module paths come behind the canonical ones, in
    natural order (a :class:`SiteTable` knows their true order).
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    port: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind in ("module", "module_in"):
            if self.path is None:
                raise InputError(f"a site of kind {self.kind!r} needs a module path")
            return
        if self.kind not in KINDS:
            raise InputError(f"no kind of site {self.kind!r}{nearest(self.kind, KINDS)}")
        template, axes = KINDS[self.kind]
        if ("{l}" in template) != (self.layer is not None):
            state = "needs" if "{l}" in template else "takes no"
            raise InputError(f"a site of kind {self.kind!r} {state} layer")
        if ("{p}" in template) != (self.port is not None) or self.port not in (None, *_PORTS):
            raise InputError(
                f"a site of kind {self.kind!r} was given port {self.port!r}; ports are q, k, v of 'attn_in'"
            )
        if self.head is not None and "head" not in axes:
            raise InputError(f"a site of kind {self.kind!r} has no heads; its axes are {list(axes)}")

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """The site that ``text`` names; a name outside the vocabulary is taken as a module path."""
        if isinstance(text, Site):
            return text
        found = _PARSED.get(text)
        if found is None:
            found = _parse(text)
            if len(_PARSED) < 8192:
                _PARSED[text] = found
        return found

    def __str__(self) -> str:
        if self.kind == "module":
            return str(self.path)
        if self.kind == "module_in":
            return f"{self.path}:in"
        name = KINDS[self.kind][0].format(l=self.layer, p=self.port)
        return name if self.head is None else f"{name}[{self.head}]"

    def __repr__(self) -> str:
        return f"Site({str(self)!r})"

    @property
    def axes(self) -> Axes | None:
        """The names of this site's axes (without the head axis if one head is chosen); None for module paths."""
        if self.kind in ("module", "module_in"):
            return None
        axes = KINDS[self.kind][1]
        return axes if self.head is None else tuple(a for a in axes if a != "head")

    @property
    def head_axis(self) -> int | None:
        """Which axis of the whole site's tensor counts heads, or None."""
        axes = KINDS[self.kind][1] if self.kind in KINDS else ()
        return axes.index("head") if "head" in axes else None

    @property
    def whole(self) -> Site:
        """The same site with every head."""
        return self if self.head is None else replace(self, head=None)

    def _key(self) -> tuple:
        if self.path is not None:
            parts = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in self.path.split("."))
            return (3, parts, self.kind)
        if self.layer is not None:
            return (1, self.layer, _RANK[self.kind], self.port or "", -1 if self.head is None else self.head)
        return (0 if self.kind in _BEFORE_BLOCKS else 2, 0, _RANK[self.kind])

    def __lt__(self, other: object) -> bool:
        return self._key() < other._key() if isinstance(other, Site) else NotImplemented


_PARSED: dict[str, Site] = {}  # a dict and no lru_cache, which would not travel by value to a remote backend


def _parse(text: str) -> Site:
    text = text.strip()
    if not text:
        raise SiteError("a site needs a name; it was given an empty one")
    stem, _, last = text.rpartition(".")
    if re.fullmatch(r"blocks\.\d+", stem) and last in ("hook_in", "hook_out"):
        text = f"{stem}.{_BLOCK_ALIASES[last]}"
    found = _HEAD_SUFFIX.match(text)
    name, head = (found["name"], int(found["head"])) if found else (text, None)
    for pattern, kind in _PATTERNS:
        match = pattern.match(name)
        if match:
            groups = match.groupdict()
            layer = int(groups["layer"]) if "layer" in groups else None
            return Site(kind=kind, layer=layer, head=head, port=groups.get("port"))
    if text.endswith(":in"):
        return Site(kind="module_in", path=text[:-3])
    return Site(kind="module", path=text)


Ask = str | Site | Iterable[str | Site]


class SiteTable(Sequence[Site]):
    """The sites of one model, in the order its forward pass reaches them; answers globs and typos."""

    def __init__(
        self, sites: Iterable[Site], *, paths: Iterable[Site] = (), heads: dict[Site, int] | None = None
    ) -> None:
        """``sites``: the model's canonical sites; ``paths``: module paths it also answers to (found by
        their exact name or a glob, not listed); ``heads``: how many heads a site has."""
        self._sites = tuple(sites)
        self._paths = tuple(paths)
        self._heads = heads or {}
        self._rank = {site: rank for rank, site in enumerate((*self._sites, *self._paths))}
        self._found: dict[object, tuple[Site, ...]] = {}

    def __len__(self) -> int:
        return len(self._sites)

    def __getitem__(self, index):  # type: ignore[override]
        return self._sites[index]

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site) and site.whole in self._rank

    def without(self, sites: Iterable[Site]) -> SiteTable:
        """The same table lacking some sites."""
        gone = set(sites)
        kept = [site for site in self._sites if site not in gone]
        return type(self)(kept, paths=self._paths, heads=self._heads)

    def n_heads(self, site: Site) -> int | None:
        """How many heads stand at ``site``, None where there are none."""
        return self._heads.get(site.whole)

    def rank(self, site: Site) -> int:
        """Where the forward pass reaches ``site`` among this table's."""
        found = self._rank.get(site)
        return self._rank[site.whole] if found is None else found

    @cached_property
    def _names(self) -> dict[str, Site]:
        return {str(site): site for site in (*self._sites, *self._paths)}

    def find(self, ask: Ask) -> tuple[Site, ...]:
        """The sites that names and globs ask for, in forward order, each once; ``[*]`` behind a name is every head.

        Raises
        ------
        SiteError
            If a name is unknown, a glob matches nothing, or a head does not exist; says the nearest
            names and the range of layers.
        """
        key = ask if isinstance(ask, str | Site) else tuple(ask)
        if key not in self._found:
            asked = [key] if isinstance(key, str | Site) else key
            if not asked:
                raise SiteError(
                    "no site was asked for; name at least one, for example 'blocks.*.hook_resid_post'"
                )
            found = {site for one in asked for site in self._one(one)}
            self._found[key] = tuple(
                sorted(found, key=lambda s: (self.rank(s), -1 if s.head is None else s.head))
            )
        return self._found[key]

    def _one(self, ask: str | Site) -> list[Site]:
        if isinstance(ask, Site) or not any(c in ask for c in "*?"):
            if isinstance(ask, str) and ask not in self._names:
                ask = ALIASES.get(ask, ask)
            site = Site.parse(ask)
            self._check(site)
            return [site]
        if ask.endswith("[*]"):
            found = [
                replace(site, head=h) for site in self._one(ask[:-3]) for h in range(self.n_heads(site) or 0)
            ]
            if not found:
                raise SiteError(f"no site matches {ask!r}: {ask[:-3]!r} has no heads")
            return found
        stem, head = ask, None
        suffix = _HEAD_SUFFIX.match(ask)
        if suffix:
            stem, head = suffix["name"], int(suffix["head"])
        # "[" would open a character class; module paths and hook names never need one
        pattern = re.compile(fnmatch.translate(stem.replace("[", "[[]")))
        found = [site for name, site in self._names.items() if pattern.match(name)]
        canonical = [site for site in found if site.path is None]
        found = canonical or found  # a glob means the vocabulary where the vocabulary answers it
        if head is not None:
            found = [replace(site, head=head) for site in found if site.head_axis is not None]
        if not found:
            raise SiteError(f"no site matches {ask!r}{self._hint(ask)}")
        for site in found:
            self._check(site)
        return found

    def _check(self, site: Site) -> None:
        if site.whole not in self._rank:
            raise SiteError(f"no site {str(site)!r}{self._hint(str(site))}")
        n_heads = self.n_heads(site)
        if site.head is not None and n_heads is not None and site.head >= n_heads:
            raise SiteError(f"no site {str(site)!r}: {site.whole} has {n_heads} heads, 0-{n_heads - 1}")

    def _hint(self, name: str) -> str:
        layers = sorted({s.layer for s in self._sites if s.layer is not None})
        plural = "s" if len(layers) > 1 else ""
        span = f"; the model has {len(layers)} layer{plural}, {layers[0]}-{layers[-1]}" if layers else ""
        wanted = re.search(r"\d+", name)
        if wanted and layers and int(wanted[0]) not in layers:
            # the layer is wrong: show the same name where it exists, not a random neighbour
            moved = name.replace(wanted[0], str(layers[-1]), 1)
            return nearest(moved, self._names) + span
        return nearest(name, self._names) + span
