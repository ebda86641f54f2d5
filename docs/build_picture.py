"""The README's picture: the head of the report that `interp analyze` writes about mini, as chromium shows it.

python docs/build_picture.py            # analyses mini first (about a minute)
python docs/build_picture.py REPORT     # of a report.html that is there
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from build_gallery import CHROMIUM, QUIET

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "report.png"


def take(report: Path, picture: Path) -> Path:
    """A screenshot of the first figure's surroundings, 1100 x 760 pixels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_context(offline=True, reduced_motion="reduce").new_page()
        page.set_viewport_size({"width": 1100, "height": 760})
        page.goto(report.resolve().as_uri())
        while not page.evaluate("Boolean(document.documentElement.dataset.ready)"):
            page.wait_for_timeout(50)  # playwright's own waiting needs eval, which the page forbids
        page.evaluate(
            "document.querySelector('section[aria-labelledby=\"geometry-title\"]').scrollIntoView()"
        )
        page.wait_for_timeout(300)
        page.screenshot(path=picture)
        browser.close()
    return picture


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            report = Path(sys.argv[1])
        else:
            subprocess.run(
                [sys.executable, "-m", "interp", "analyze", "--preset", "quick", "--out", folder], check=True
            )
            report = Path(folder) / "report.html"
        sys.stdout.write(f"{take(report, PICTURE)}\n")
