"""What a long run tells while it works, and how it is asked to stop.

:func:`progress` is a bar on a terminal and silence elsewhere; :class:`EventLog` is the record that
is always kept; :func:`stop_on_interrupt` turns Ctrl-C into a request to stop at the next safe point.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from interp.runs.files import JsonLines

__all__ = ["EventLog", "Quiet", "Stop", "progress", "stop_on_interrupt"]

Item = TypeVar("Item")
_log = logging.getLogger(__name__)


class Quiet(Generic[Item]):
    """A progress bar's methods without the bar."""

    def __init__(self, iterable: Iterable[Item] = ()) -> None:
        self._iterable = iterable
        self.n = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self._iterable)

    def __enter__(self) -> Quiet[Item]:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, n: int | float = 1) -> None:
        """Count ``n`` more."""
        self.n += n

    def set_postfix(self, **shown: object) -> None:
        """Nothing to show it on."""

    def set_postfix_str(self, shown: str = "") -> None:
        """Nothing to show it on."""

    def close(self) -> None:
        """Nothing to close."""


def progress(
    iterable: Iterable[Item] = (),
    *,
    total: int | None = None,
    desc: str = "",
    unit: str = "it",
    initial: int = 0,
    enabled: bool | None = None,
    pace: bool = True,
) -> Any:
    """``iterable`` with a progress bar on stderr, or the same without one.

    ``enabled=None`` shows it on a terminal or in a notebook only. The answer can be iterated, or
    used as a context manager with ``.update(n)``. ``pace=False`` leaves out units a second, for callers
    that show a pace of their own.
    """
    if enabled is None:
        enabled = sys.stderr.isatty() or "ipykernel" in sys.modules
    if not enabled:
        return Quiet(iterable)
    from tqdm.auto import tqdm  # only where a bar is shown: it looks for a notebook when imported

    given = None if isinstance(iterable, tuple) and not iterable else iterable
    form = None if pace else "{desc}: {n_fmt}/{total_fmt} |{bar}| [{elapsed}<{remaining}{postfix}]"
    return tqdm(
        given, total=total, desc=desc, unit=unit, initial=initial, dynamic_ncols=True, bar_format=form
    )


class EventLog:
    """A JSON-lines log: each event with its time (UTC) and the seconds since the log was opened.

    ``EventLog(None)`` keeps nothing, so that callers need no case for "no log".
    """

    def __init__(self, path: str | Path | None) -> None:
        # Not fsynced: a log that loses its last line in a power cut is still a log.
        self._lines = None if path is None else JsonLines(path, sync=False)
        self._start = time.monotonic()

    @property
    def path(self) -> Path | None:
        """Where the log is kept."""
        return None if self._lines is None else self._lines.path

    def write(self, event: str, **fields: Any) -> None:
        """Add one event; the fields must be JSON values."""
        if self._lines is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            seconds = round(time.monotonic() - self._start, 3)
            self._lines.append({**fields, "event": event, "time": now, "seconds": seconds})


class Stop:
    """Whether the user asked to stop; a loop looks at ``requested`` where it is safe to stop."""

    def __init__(self) -> None:
        self.requested = False

    def check(self, state: str) -> None:
        """Raise KeyboardInterrupt with ``state`` (what is left and how to go on) if a stop was asked for."""
        if self.requested:
            raise KeyboardInterrupt(state)


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Within: the first Ctrl-C (SIGINT) only sets ``.requested``; the second does what it did before.

    Handlers are put back on leaving. Outside the main thread, where Python allows no handlers,
    nothing changes and ``.requested`` stays False.
    """
    stop = Stop()
    previous = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or previous is None:  # None: a handler that Python did not install and cannot put back
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.requested:
            signal.signal(signal.SIGINT, previous)
            signal.raise_signal(signal.SIGINT)
            return
        stop.requested = True
        if sys.stderr.isatty():
            with suppress(OSError):
                sys.stderr.write("\n")  # off the line of the bar
        _log.warning("stopping at the next safe point; Ctrl-C once more aborts at once")

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, previous)
