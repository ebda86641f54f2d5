"""Moments: the sums of one pass over many sites; CKA, CCA, every rank, neural collapse and cosines come from them.

Rows wait until a chunk is full, so how the updates were cut does not matter; the first chunk's mean becomes the
origin. Two Moments over different rows merge exactly, whatever their origins. Read next: ``interp/metrics``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from interp.errors import InputError, SiteError, nearest
from interp.moments.config import MomentsConfig, size_text
from interp.moments.sums import Sums, TotalSums, count, empty, gather, gather_twin
from interp.moments.waiting import Waiting
from interp.showing import Shown
from interp.sites import Site

__all__ = ["Accumulator", "SiteMoments", "merged", "need_pair", "scatter_of"]

logger = logging.getLogger("interp")


class Accumulator(Shown):
    """The sums, how rows are taken in and how they are read; :class:`interp.Moments` says what each option is."""

    def __init__(
        self,
        widths: Mapping[str, int] | Mapping[Site, int],
        *,
        cross: bool | Sequence[tuple[str | Site, str | Site]] = False,
        max_bytes: int | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        self._begin(MomentsConfig.of(widths, cross, **options), max_bytes, torch.device(device))

    def _begin(self, config: MomentsConfig, max_bytes: int | None, device: torch.device) -> None:
        size = f"moments of {len(config.sites)} sites, {len(config.cross)} cross blocks: {size_text(config.n_bytes)}"
        if max_bytes is not None and config.n_bytes > max_bytes:
            raise InputError(
                f"{size} are needed, max_bytes allows {size_text(max_bytes)}; keep fewer cross blocks or parts"
            )
        logger.info("%s will be allocated", size)
        self.config = config
        self.dropped = 0
        """Rows left out because some site held NaN or infinity there (only with ``bad_rows="drop"``)."""
        with torch.inference_mode(False):  # rows may be taken in after the mode in which this was made
            self._parts = [empty(config, device) for _ in range(config.parts)]
        self._shift: dict[str, Tensor] | None = None
        self._waiting = Waiting(config.chunk)
        self._room: dict[str | int, Tensor] = {}
        self._n_chunks = self._n_blocks = 0

    @staticmethod
    def bytes_needed(
        widths: Mapping[str, int] | Mapping[Site, int],
        *,
        cross: bool | Sequence[tuple[str | Site, str | Site]] = False,
        **options: Any,
    ) -> int:
        """What a Moments of these sites would take in memory."""
        return MomentsConfig.of(widths, cross, **options).n_bytes

    # -- filling ----------------------------------------------------------------------------------

    def update(
        self,
        rows: Mapping[str, Tensor] | Mapping[Site, Tensor],
        *,
        labels: Tensor | None = None,
        bad_rows: str = "raise",
    ) -> None:
        """Take in rows [sample, d] of every site; ``labels`` [sample] int, negative where a row has none.

        Raises
        ------
        InputError
            Sites missing or of other widths or numbers of rows, labels out of range, or NaN or infinity in some row
            (counted and named; ``bad_rows="drop"`` leaves such rows out at all sites and counts them in ``dropped``).
        """
        given = {str(site): x.detach() for site, x in rows.items()}
        self._check(given, labels)
        # a finite total has finite terms; one that is not may yet be an overflow, which the row sums then show
        if not all(bool(torch.isfinite(x.sum())) for x in given.values()):
            given, labels = self._without_bad_rows(given, labels, bad_rows)
        for rows_of, marks in self._waiting.chunks(given, None if labels is None else labels.long()):
            self._chunk(rows_of, marks)

    def _without_bad_rows(
        self, given: dict[str, Tensor], labels: Tensor | None, bad_rows: str
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        good = torch.stack([torch.isfinite(x.sum(1, dtype=torch.float64)) for x in given.values()])
        if bool(good.all()):
            return given, labels
        if bad_rows != "drop":
            site, count = next((s, int((~g).sum())) for s, g in zip(given, good, strict=True) if not g.all())
            first = int(torch.nonzero(~good.all(0))[0])
            raise InputError(
                f"{site} holds NaN or infinity in {count} of {good.shape[1]} rows, the first of them row {first}"
                " of this update; bad_rows='drop' leaves such rows out"
            )
        keep = good.all(0)
        self.dropped += int((~keep).sum())
        given = {site: x[keep] for site, x in given.items()}
        labels = None if labels is None else labels[keep]
        return given, labels

    def _check(self, given: Mapping[str, Tensor], labels: Tensor | None) -> None:
        config = self.config
        for site in (*given, *config.sites):
            if site not in given or site not in config.sites:
                known = config.sites if site in given else list(given)
                raise SiteError(f"{site!r} is not on both sides of this update{nearest(site, known)}")
        counts = {site: x.shape[:1] for site, x in given.items()}
        for site, d in zip(config.sites, config.widths, strict=True):
            if given[site].ndim != 2 or given[site].shape[1] != d or not given[site].is_floating_point():
                raise InputError(
                    f"{site} must be floats [sample, {d}]; got {given[site].dtype} {list(given[site].shape)}"
                )
        if len(set(counts.values())) > 1:
            raise InputError(
                f"sites hold different numbers of rows: { {s: int(c[0]) for s, c in counts.items()} }"
            )
        if labels is not None and (
            labels.shape != next(iter(counts.values()))
            or (len(labels) and int(labels.max()) >= config.n_classes)
        ):
            raise InputError(
                f"labels must be [sample] below n_classes = {config.n_classes}; got {list(labels.shape)}"
                f" up to {int(labels.max())}"
            )

    def _flush(self) -> None:
        """Gather the rows that still wait."""
        if self._waiting.n:
            self._chunk(*self._waiting.rest())

    def _chunk(self, rows: dict[str, Tensor], labels: Tensor | None) -> None:
        config = self.config
        into = self._parts[self._n_chunks % config.parts]
        device = into[("n",)].device
        wide = {
            site: (x if x.dtype in (torch.float32, torch.float64) else x.float()).to(device)
            for site, x in rows.items()
        }
        if (
            self._shift is None
        ):  # representable in the rows' type, so that the subtraction itself rounds least
            means = {site: x.mean(0, dtype=torch.float64).to(x.dtype).double() for site, x in wide.items()}
            self._shift = means
        where = None if labels is None else labels.to(device)
        count(into, len(next(iter(wide.values()))), config, labels=where)
        # one site after the other needs less memory; what couples sites needs them all
        together = bool(config.cross or config.block)
        for group in [config.sites] if together else [(site,) for site in config.sites]:
            shifted = {}
            for site in group:
                x, room = wide[site], self._space(site if together else wide[site].shape[1], wide[site])
                shifted[site] = torch.sub(x, self._shift[site].to(room.dtype), out=room).to(config.dtype)
            gather(into, shifted, config, labels=where, n_blocks_before=self._n_blocks)
            for site in group if config.twin else ():
                gather_twin(into, site, wide[site].to(config.dtype), room=shifted[site])
        self._n_chunks += 1
        self._n_blocks += -(-len(next(iter(rows.values()))) // config.block) if config.block else 0

    def _space(self, key: str | int, x: Tensor) -> Tensor:
        """Room for a chunk like ``x``, in the wider of its type and that of the products; the next chunk takes it
        again."""
        room, dtype = self._room.get(key), torch.promote_types(x.dtype, self.config.dtype)
        if room is None or room.dtype != dtype:
            with torch.inference_mode(False):  # the memory outlives the mode in which the rows came
                self._room[key] = room = x.new_empty((self.config.chunk, x.shape[1]), dtype=dtype)
        return room[: len(x)]

    # -- reading ----------------------------------------------------------------------------------

    @property
    def parts(self) -> list[Sums]:
        """The separate sums (one unless ``parts`` was asked for), about the origin ``shift``."""
        self._flush()
        return self._parts

    @property
    def sums(self) -> Sums:
        """The sums over all rows, about the origin ``shift``. Rows still waiting are gathered first."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else TotalSums(parts)

    def left_out(self) -> list[Sums]:
        """The sums with each part left out, for a jackknife; empty with a single part."""
        used = [part for part in self.parts if part.n]
        return [TotalSums(used[:i] + used[i + 1 :]) for i in range(len(used))] if len(used) > 1 else []

    @property
    def shift(self) -> dict[str, Float64[Tensor, " d"]]:
        """The origin: the mean of the first chunk."""
        self._flush()
        if self._shift is None:
            raise InputError("these moments hold no rows yet")
        return self._shift

    @property
    def n(self) -> int:
        """Rows taken in."""
        return sum(part.n for part in self._parts) + self._waiting.n

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites, in the order given."""
        return self.config.sites

    def __getitem__(self, site: str | Site) -> SiteMoments:
        name = str(site)
        if name not in self.config.sites:
            raise SiteError(f"no moments of {name!r}{nearest(name, self.config.sites)}")
        return SiteMoments(self, name)

    def _facts(self) -> dict[str, Any]:
        c = self.config
        said = {
            "sites": list(map(str, c.sites)),
            "n": self.n,
            "cross blocks": len(c.cross),
            "products": c.products,
        }
        return said | {"size": size_text(c.n_bytes)}

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Moments({len(c.sites)} sites, n = {self.n}, {len(c.cross)} cross blocks, {c.products} products,"
            f" {size_text(c.n_bytes)})"
        )


M = TypeVar("M", bound=Accumulator)


def merged(many: Iterable[M]) -> M:
    """The moments of all rows together; see :meth:`interp.Moments.merge`."""
    held = list(many)
    config = held[0].config
    for one in held[1:]:
        if one.config != config:
            raise InputError(
                f"moments of different configurations cannot be merged: {one.config} and {config}"
            )
    filled = [one for one in held if one.n]
    device = held[0]._parts[0][("n",)].device
    out = type(held[0]).__new__(type(held[0]))
    out._begin(config, None, device)
    out.dropped = sum(one.dropped for one in held)
    if not filled:
        return out
    out._shift = {site: shift.clone() for site, shift in filled[0].shift.items()}
    for one in filled:
        by = {site: one.shift[site].to(device) - out._shift[site] for site in config.sites}
        for mine, theirs in zip(out._parts, one.parts, strict=True):
            mine.add_(Sums({k: v.to(device) for k, v in theirs.table.items()}).moved(by, config.pairs))
        out._n_chunks += one._n_chunks
        out._n_blocks += one._n_blocks
    return out


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SiteMoments(Shown):
    """One site of a Moments: what the functions of ``interp.metrics`` take in place of rows."""

    moments: Accumulator
    site: str

    @property
    def n(self) -> int:
        """Rows."""
        return self.moments.n

    @property
    def d(self) -> int:
        """Width."""
        config = self.moments.config
        return config.widths[config.sites.index(self.site)]

    @property
    def mean(self) -> Float64[Tensor, " d"]:
        """Mean row."""
        return self.moments.shift[self.site] + self.moments.sums["first", self.site] / self.n

    @property
    def scatter(self) -> Float64[Tensor, "d d"]:
        """Sum of (x - mean)(x - mean)'."""
        return scatter_of(self.moments.sums, self.site)

    @property
    def covariance(self) -> Float64[Tensor, "d d"]:
        """``scatter / (n - 1)``."""
        return self.scatter / (self.n - 1)

    def cross(self, other: SiteMoments) -> Float64[Tensor, "d e"]:
        """Sum of (x - mean)(y - mean)' with another site of the same Moments.

        Raises
        ------
        InputError
            The pair's cross block was not kept.
        """
        need_pair(self, other)
        sums = self.moments.sums
        first = torch.outer(sums["first", self.site], sums["first", other.site]) / sums[("n",)]
        return sums.second(self.site, other.site) - first


def scatter_of(sums: Sums, site: str, *, about: Shaped[Tensor, " d"] | None = None) -> Float64[Tensor, "d d"]:
    """The centred scatter matrix; about 0 if ``about`` gives the origin that the sums are taken from."""
    first, n = sums["first", site], sums[("n",)]
    second = sums["second", site, site]
    if about is None:
        return second - torch.outer(first, first) / n
    return second + torch.outer(first, about) + torch.outer(about, first) + n * torch.outer(about, about)


def need_pair(x: SiteMoments, y: SiteMoments) -> None:
    """Raise InputError unless the two belong to one Moments that keeps their cross block."""
    if x.moments is not y.moments:
        raise InputError("the two sites come from different Moments: accumulate them together, with cross=")
    pairs = x.moments.config.pairs
    if (x.site, y.site) not in pairs and (y.site, x.site) not in pairs:
        raise InputError(
            f"the cross block of {x.site} and {y.site} was not kept; accumulate with cross=True or cross=[(a, b)]"
        )
