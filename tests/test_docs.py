"""Every block of code in the README and the docs: Python runs, command lines are parsed by the real commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.lines import parsed

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, body) of every fenced block."""
    text = (ROOT / page).read_text("utf-8")
    found = FENCE.findall(text)
    assert text.count("```") == 2 * len(found), f"{page}: a block that is not closed, or is indented"
    return found


def python(page: str) -> str:
    return "\n".join(body for language, body in blocks(page) if language == "python")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    assert {language for language, _ in blocks(page)} <= {"python", "sh", "toml", "json", "text"}
    assert [
        body
        for language, body in blocks(page)
        if language == "text" and re.search(r"^(import|interp) ", body, re.M)
    ] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind != "python" for kind, _ in blocks(page))]
)
def test_every_command_line_is_one_that_the_commands_take(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`interp` lines by the commands' own parsers; `make` by its targets; scripts and modules by being there."""
    monkeypatch.chdir(tmp_path)
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for language, body in blocks(page):
        if language == "toml":
            tomllib.loads(body)
        elif language == "json":
            json.loads(body)
        elif language == "sh":
            for line in filter(None, (line.partition("  #")[0].strip() for line in body.splitlines())):
                words = shlex.split(line)
                if words[0] == "interp":
                    for given, path in zip(words, words[1:], strict=False):
                        if given == "--config":
                            Path(path).parent.mkdir(parents=True, exist_ok=True)
                            command = " ".join(
                                words[: next(i for i, w in enumerate(words) if w.startswith("-"))]
                            )
                            told = {"schema": "interp-command/1", "command": command, "options": {}}
                            Path(path).write_text(json.dumps(told) if path.endswith(".json") else "")
                    parsed(line)
                elif words[0] == "make":
                    assert set(words[1:]) <= targets, line
                elif words[:2] == ["python", "-m"]:
                    assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file(), line
                elif words[0] == "python":
                    assert (ROOT / words[1]).is_file(), line
                else:
                    assert (ROOT / words[0]).is_file(), line


@pytest.mark.slow
@pytest.mark.timeout(900)  # a page may train a network
@pytest.mark.parametrize("page", [page for page in PAGES if python(page)])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """Block after block in one session, as a reader would type them."""
    words = [sys.executable, "-W", "ignore", "-c", python(page)]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
