"""Filling an existing store: windows into shards, the model's tensors into rows, rows onto the disk.

A shard is a pure function of a stretch of the texts. Its windows are sorted by length (so that
little is padded) and run in batches; each row goes where the order of the texts puts it. One
thread hashes and writes a shard while the next is computed. Read first: ``harvesting.py``.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import CheckError
from interp.models.base import Model
from interp.runs.files import JsonLines, require_space, sweep_temporaries
from interp.runs.progress import EventLog, Stop
from interp.runs.progress import progress as bar
from interp.sites import Site
from interp.stores.documents import Corpus, Window
from interp.stores.manifest import Shard, layout_of, manifest_name, read_manifest, shard_name
from interp.stores.shards import COLUMNS, DTYPES, Layout, write_shard
from interp.tokens import Tokens

__all__ = ["Filling", "require_rows", "seeded"]

_log = logging.getLogger(__name__)


class Filling:
    """One process's harvest into an existing store."""

    def __init__(
        self,
        model: Model,
        config: Mapping[str, Any],
        folder: Path,
        *,
        part: tuple[int, int],
        stop: Stop,
        log: EventLog,
    ) -> None:
        self.model, self.folder, self.part, self.stop, self.log = model, folder, part, stop, log
        self.layout = layout_of(dict(config))
        self.sites = [name for name, _ in self.layout.sites]
        self.batch_size: int = config["identity"]["batch_size"]
        self.seed: int = config["identity"]["seed"]
        self.shard_rows: int = config["shard_rows"]
        self.per_token = config["rows"] == "token"
        self.lines = JsonLines(folder / manifest_name(*part))
        self.maskable = model.backend != "torch"
        self.pad = getattr(model.tokenizer, "pad_token_id", None) or 0
        self.spare: list[dict[str, Tensor]] = []

    def recover(self) -> tuple[Shard, ...]:
        """Tidy up after a killed run; the shards that are complete."""
        rank, world_size = self.part
        torn = self.lines.mend()
        if torn:
            _log.warning("%s ended in a torn line, which was cut off: %r", self.lines.path, torn[:80])
            self.log.write("torn line cut off", manifest=self.lines.path.name, line=torn[:200])
        sweep_temporaries(
            self.folder, lambda name: name[:-12].isdigit() and int(name[:-12]) % world_size == rank
        )
        return read_manifest(self.lines.path, self.layout, self.part)

    def fill(
        self, corpus: Corpus, before: Sequence[Shard], max_rows: int | None, progress: bool | None
    ) -> None:
        """Shard after shard until the texts end or ``max_rows`` are stored."""
        rows = sum(shard.rows for shard in before)
        require_rows(self.folder, self.layout, max_rows, rows)
        self.log.write(
            "harvest", store=str(self.folder), rows=rows, part=list(self.part), source=corpus.source
        )
        shown = bar(desc="harvest", total=max_rows, initial=rows, unit="row", enabled=progress)
        with _Writer(self, corpus.source) as writer, shown:
            stretches = enumerate(self._stretches(corpus, rows, max_rows), start=len(before))
            for number, (windows, cursor, digest) in stretches:
                name = shard_name(number, self.part)
                columns = self._columns(windows)
                with seeded(f"{self.seed} {name}", self.model.device):
                    for n in self._forward(windows, columns):
                        shown.update(n)
                        self.stop.check(
                            f"stopped with {rows} rows in {self.folder}; resume=True goes on from there"
                        )
                writer.submit(name, columns, cursor, digest)
                rows += len(columns["doc"])
        self.log.write("harvested", store=str(self.folder), rows=rows, empty_documents=corpus.n_empty)

    def _rows_of(self, window: Window) -> int:
        return len(window.ids) - window.first if self.per_token else 1

    def _stretches(
        self, corpus: Corpus, rows: int, max_rows: int | None
    ) -> Iterator[tuple[list[Window], tuple[int, int], str]]:
        """The windows of each shard to come, with the cursor and the hash behind them."""
        stream = (window for window in corpus if self._rows_of(window))
        pending: Window | None = None
        while True:
            windows: list[Window] = []
            n, ended = 0, False
            while max_rows is None or rows + n < max_rows:
                pending = pending or next(stream, None)
                ended = pending is None
                if pending is None or n + self._rows_of(pending) > self.shard_rows:
                    break
                windows.append(pending)
                n += self._rows_of(pending)
                pending = None
            if not windows:
                return
            # behind the last text the cursor points behind it, so that texts added later are found
            cursor, digest = corpus.end if ended else (windows[-1].cursor, windows[-1].digest)
            yield windows, cursor, digest
            rows += n

    def _columns(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """A shard's tensors: documents, tokens and positions filled in, activations still to come."""
        n = sum(map(self._rows_of, windows))
        buffers = self.spare.pop() if self.spare else self._buffers()
        columns = {name: tensor[:n] for name, tensor in buffers.items()}
        pick = (lambda w: slice(w.first, None)) if self.per_token else (lambda w: slice(-1, None))
        counts = [self._rows_of(w) for w in windows]
        columns["doc"] = torch.from_numpy(
            np.repeat(np.array([w.doc for w in windows], dtype=np.int64), counts)
        )
        columns["tokens"] = torch.from_numpy(
            np.concatenate([w.ids[pick(w)] for w in windows]).astype(np.int32)
        )
        columns["pos"] = torch.from_numpy(
            np.concatenate([np.arange(len(w.ids), dtype=np.int32)[pick(w)] for w in windows])
        )
        return columns

    def _buffers(self) -> dict[str, Tensor]:
        dtype, pinned = DTYPES[self.layout.dtype], self.model.device.type == "cuda"
        return {
            f"acts/{name}": torch.empty(self.shard_rows, *shape, dtype=dtype, pin_memory=pinned)
            for name, shape in self.layout.sites
        }

    def _forward(self, windows: Sequence[Window], columns: Mapping[str, Tensor]) -> Iterator[int]:
        """Run the windows, the longest first, and lay each row down in its place; yields rows done."""
        counts = [self._rows_of(window) for window in windows]
        starts = np.concatenate([[0], np.cumsum(counts)]).tolist()
        for batch in self._batches([len(window.ids) for window in windows]):
            tokens = _padded([windows[i].ids for i in batch], self.pad)
            places = [(starts[i], windows[i].first, len(windows[i].ids)) for i in batch]
            sink = _Sink(columns, tokens.ids.shape, places, self.per_token)
            self.model.capture(tokens, self.sites, sink=sink)
            sink.check(self.sites)
            yield sum(counts[i] for i in batch)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        order = sorted(
            range(len(lengths)), key=lambda i: -lengths[i]
        )  # stable: the texts' order among equals
        # A plain module takes no mask, so what it is given must be of one length.
        groups = [order] if self.maskable else [list(g) for _, g in groupby(order, key=lambda i: lengths[i])]
        for group in groups:
            for at in range(0, len(group), self.batch_size):
                yield group[at : at + self.batch_size]


def require_rows(folder: Path, layout: Layout, max_rows: int | None, rows: int = 0) -> None:
    """Refuse a limit of ``max_rows``, ``rows`` of them stored already, that does not fit on the disk."""
    if max_rows is not None:
        n_bytes = max(0, max_rows - rows) * layout.row_bytes
        require_space(folder, n_bytes, what=f"storing up to {max_rows} rows")


def _padded(ids: Sequence[np.ndarray], pad: int) -> Tokens:
    lengths = np.array([len(i) for i in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    table = np.full(mask.shape, pad, dtype=np.int64)
    table[mask] = np.concatenate(ids)
    return Tokens(ids=torch.from_numpy(table), mask=torch.from_numpy(mask))


@dataclass(slots=True, eq=False)
class _Sink:
    """Takes a batch's tensors as they come and copies their real rows into the shard."""

    columns: Mapping[str, Tensor]
    shape: Sequence[int]
    places: Sequence[tuple[int, int, int]]
    """For each sequence: its first row in the shard, the first position to keep, its length."""
    per_token: bool
    seen: set[str] = field(default_factory=set)

    def __call__(self, site: Site, tensor: Tensor) -> None:
        name = str(site)
        target = self.columns[f"acts/{name}"]
        lead = tuple(self.shape) if self.per_token else (self.shape[0],)
        if tuple(tensor.shape) != (*lead, *target.shape[1:]):
            raise CheckError(
                f"{name} has shape {list(tensor.shape)}; {[*lead, *target.shape[1:]]} was expected"
            )
        self.seen.add(name)
        if tensor.device.type != "cpu":
            tensor = tensor.to(target.dtype).cpu()  # converted there: half the bytes to move
        if not self.per_token:
            target[torch.tensor([start for start, _, _ in self.places])] = tensor.to(target.dtype)
        elif self._solid():
            start, first, length = self.places[0]
            n = (length - first) * len(self.places)
            target[start : start + n].view(len(self.places), length - first, *target.shape[1:]).copy_(
                tensor[:, first:]
            )
        else:
            for row, (start, first, length) in enumerate(self.places):
                target[start : start + length - first].copy_(tensor[row, first:length])

    def _solid(self) -> bool:
        """Whether the batch is one unpadded run of rows in the shard: one copy instead of one a sequence."""
        start, first, length = self.places[0]
        n = length - first
        return all(p == (start + i * n, first, length) for i, p in enumerate(self.places))

    def check(self, sites: Sequence[str]) -> None:
        """Refuse a pass that never came by a site."""
        missing = [site for site in sites if site not in self.seen]
        if missing:
            raise CheckError(f"the model's pass never reached {', '.join(missing)}")


class _Writer:
    """Hashes and writes one shard in the background while the next is computed."""

    def __init__(self, run: Filling, source: str) -> None:
        self._run, self._source = run, source
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="interp-harvest")
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._wait()  # also when the model failed: a shard that was handed over is complete
        finally:
            self._pool.shutdown()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def submit(self, name: str, columns: dict[str, Tensor], cursor: tuple[int, int], digest: str) -> None:
        self._wait()
        self._pending = self._pool.submit(self._write, name, columns, cursor, digest)

    def _write(self, name: str, columns: dict[str, Tensor], cursor: tuple[int, int], digest: str) -> None:
        run, n = self._run, len(columns["doc"])
        _check_finite(columns, run.layout)
        path = run.folder / name
        require_space(run.folder, run.layout.header(n)[2] + 65536, what=f"shard {name}")
        sha256, n_bytes = write_shard(path, run.layout, columns)
        shard = Shard(name, n, n_bytes, sha256, *cursor, digest, self._source)
        run.lines.append(shard.record())
        run.log.write("shard", name=name, rows=n, bytes=n_bytes)
        run.spare.append(
            {key: _whole(value, run.shard_rows) for key, value in columns.items() if key not in COLUMNS}
        )


def _whole(part: Tensor, n_rows: int) -> Tensor:
    """The buffer of which ``part`` is the beginning."""
    return part.as_strided((n_rows, *part.shape[1:]), part.stride())


def _check_finite(columns: Mapping[str, Tensor], layout: Layout) -> None:
    for name, _ in layout.sites:
        value = columns[f"acts/{name}"]
        # One pass without a copy; what is finite may still have a sum that is not, so look closer then.
        if bool(torch.isfinite(value.sum(dtype=torch.float32))):
            continue
        bad = (~torch.isfinite(value)).flatten(1).any(1).nonzero()
        if len(bad):
            row = int(bad[0])
            where = f"document {int(columns['doc'][row])}, position {int(columns['pos'][row])}"
            hint = "; float16 ends at 65504: store bfloat16 or float32" if layout.dtype == "float16" else ""
            raise CheckError(f"{name} is not finite at {where} ({len(bad)} of {len(value)} rows){hint}")


@contextmanager
def seeded(seed: str, device: torch.device) -> Iterator[None]:
    """Random numbers within depend on ``seed`` alone, and drawing them disturbs nobody outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(zlib.crc32(seed.encode()))
        yield
