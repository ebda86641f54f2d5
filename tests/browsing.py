"""Pages in a real browser without a network: what they ask for, what they complain of, what can be read and reached."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (
        Path(path)
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    Path("/usr/bin/chromium"),
)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]


@dataclass
class Opened:
    """A page and everything it did that it should not have."""

    page: Any
    html: Path
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def assert_silent(self) -> None:
        """It asked for nothing but itself, and nothing complained."""
        assert self.requests == [self.html.resolve().as_uri()]
        assert self.messages == []


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; skips the test where there is none."""
    import pytest

    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent")
    with playwright.sync_playwright() as play:
        running = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield running
        running.close()


def until(page: Any, expression: str, *, seconds: float = 60) -> None:
    """Wait until ``expression`` is true: playwright's own waiting needs eval, which the pages forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not true after {seconds} s: {expression}"
        page.wait_for_timeout(50)


def opened(browser: Any, html: Path, **context: Any) -> Opened:
    """The page, ready, in a context of its own."""
    page = browser.new_context(offline=True, **context).new_page()
    one = Opened(page, html)
    page.on("request", lambda request: one.requests.append(request.url))
    page.on("console", lambda message: one.messages.append(message.text))
    page.on("pageerror", lambda error: one.messages.append(str(error)))
    page.goto(html.resolve().as_uri())
    if context.get("java_script_enabled", True):
        until(page, "Boolean(document.documentElement.dataset.ready)")
    return one
