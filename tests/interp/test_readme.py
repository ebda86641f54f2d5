"""What the README and the docs say is so: the example runs, the rooms exist, the commands are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language ("" for those without)."""
    fenced = text.split("```")[1::2]
    return [body for head, _, body in (block.partition("\n") for block in fenced) if head == language]


def test_the_example_of_the_readme_runs(root: Path, tmp_path: Path) -> None:
    (example,) = blocks((root / "README.md").read_text(encoding="utf-8"), "python")
    ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    shape, *ablated, cka = ran.stdout.splitlines()
    assert shape == "torch.Size([256, 17, 128])"
    assert [line.split()[0] for line in ablated] == ["0", "1", "2", "3"]
    assert cka.startswith("linear CKA = ")


def test_every_room_in_the_annotated_tree_exists(root: Path) -> None:
    (tree,) = (
        block
        for block in blocks((root / "README.md").read_text(encoding="utf-8"), "text")
        if "sites.py" in block
    )
    top = Path()
    for line in tree.splitlines():
        place = line.split()[0]
        if not line.startswith(" "):
            top = Path(place)
        found = root / top / place if line.startswith(" ") else root / place
        assert found.is_dir() if place.endswith("/") else found.is_file(), found


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{name}.md"
            for name in sorted(path.stem for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
        ),
    ],
)
def test_every_file_that_a_page_names_exists(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    linked = [(root / page).parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)]
    named = [
        root / target
        for target in re.findall(r"`((?:interp|probes|sae|circuits|tests|benchmarks|docs)/[\w./]*)`", text)
    ]
    assert [str(path) for path in linked + named if not path.exists()] == []


def test_every_file_on_the_map_is_there(root: Path) -> None:
    """Also those named without their folder."""
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.py)`", text))
    there = {
        path.name
        for package in ("interp", "probes", "sae", "circuits")
        for path in (root / package).rglob("*.py")
    }
    assert named
    assert named - there == set()


def test_the_page_on_the_command_line_knows_every_command(root: Path) -> None:
    from importlib.metadata import entry_points

    text = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    told = {
        line.removeprefix("## interp ").strip() for line in text.splitlines() if line.startswith("## interp ")
    }
    assert told == {entry.name for entry in entry_points(group="interp.commands")}
