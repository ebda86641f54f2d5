"""`interp doctor` on whole installations and on damaged ones, damaged as pip would: by files written over files.

Each installation is our wheel unpacked into a folder of its own that comes first on the path of a fresh process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from interp.commands import doctor


@pytest.fixture
def site(wheel: Path, tmp_path: Path) -> Path:
    """A folder with our wheel unpacked in it, as pip leaves it."""
    folder = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def install_foreign(site: Path, name: str, version: str) -> None:
    """What `pip install NAME` leaves for an unrelated distribution with the same top-level package."""
    package, info = site / name, site / f"{name}-{version}.dist-info"
    info.mkdir()
    (package / "__init__.py").write_text(f'raise SystemExit("{name} was run")\n')
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


def examine(site: Path, *, cwd: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and findings of `interp doctor --json` in a process that has `site` first on its path."""
    start = f"import sys; sys.path.insert(0, {str(site)!r}); from interp.cli import main; sys.exit(main())"
    folder = site.parent / "work"
    folder.mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-P", "-c", start, "doctor", "--json"],
        cwd=cwd or folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def test_a_whole_installation_is_well(site: Path) -> None:
    code, findings = examine(site)
    assert findings["problems"] == []
    assert code == 0
    assert findings["packages"] == {name: str(site / name / "__init__.py") for name in doctor.PACKAGES}
    assert findings["versions"]["torch"]["installed"]
    assert findings["devices"]["devices"][0] == "cpu"
    assert {"interp.commands:doctor", "interp.commands:capture", "interp.stations:sae"} <= set(
        findings["plugins"]
    )


@pytest.mark.parametrize(("name", "version"), [("circuits", "3.2.5"), ("probes", "0.1.0")])
def test_a_package_that_another_distribution_overwrote_is_named_and_not_run(
    site: Path, name: str, version: str
) -> None:
    install_foreign(site, name, version)
    code, findings = examine(site)
    told = "\n".join(findings["problems"])
    assert code == 1
    assert f"{name}: {site / name / '__init__.py'} is not ours" in told
    assert (
        f"{name}: also installed by {name}, which writes over our files; pip uninstall {name}, then reinstall"
        in told
    )
    assert f"files differ from those installed: {name}/__init__.py" in told
    assert findings["plugins"]["interp.commands:doctor"]["problem"] is None


def test_a_package_left_gutted_by_an_uninstall_is_named(site: Path) -> None:
    install_foreign(site, "circuits", "3.2.5")
    shutil.rmtree(site / "circuits-3.2.5.dist-info")
    (site / "circuits" / "__init__.py").unlink()
    code, findings = examine(site)
    told = "\n".join(findings["problems"])
    assert code == 1
    assert "files differ from those installed: circuits/__init__.py (gone)" in told


def test_a_file_in_the_working_folder_that_hides_a_package_is_named(site: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "sae.py").write_text("answer = 42\n")
    code, findings = examine(site, cwd=mine)
    assert code == 1
    (told,) = findings["problems"]
    assert told.startswith(f"sae: {mine / 'sae.py'} hides ours")


def test_an_edited_file_of_the_installation_is_named(site: Path) -> None:
    with (site / "interp" / "lazy.py").open("a") as stream:
        stream.write("# a line that was not there\n")
    code, findings = examine(site)
    assert code == 1
    assert "files differ from those installed: interp/lazy.py" in findings["problems"][0]


def test_a_dependency_below_its_floor_and_a_missing_one_are_named(site: Path) -> None:
    (info,) = site.glob("interp_toolkit-*.dist-info")
    metadata = (info / "METADATA").read_text()
    torch = next(line for line in metadata.splitlines() if line.startswith("Requires-Dist: torch>"))
    wanted = f"Requires-Dist: torch>=99\nRequires-Dist: no-such-distribution>=1\n{torch}x"
    (info / "METADATA").write_text(metadata.replace(torch, wanted.rpartition("\n")[0]))
    code, findings = examine(site)
    assert code == 1
    assert any(p.startswith("torch: ") and p.endswith("torch>=99 is needed") for p in findings["problems"])
    assert "no-such-distribution: is not installed; no-such-distribution>=1 is needed" in findings["problems"]


def test_a_plugin_that_cannot_be_loaded_is_named_and_the_others_still_work(site: Path) -> None:
    info = site / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[interp.commands]\nbroken = no_such_module:register\n")
    code, findings = examine(site)
    assert code == 1
    (told,) = findings["problems"]
    assert told.startswith("plugin interp.commands:broken (no_such_module:register): ModuleNotFoundError")
    assert findings["plugins"]["interp.commands:capture"]["problem"] is None


def test_the_lines_for_people_hold_the_versions_and_end_with_the_verdict(site: Path) -> None:
    _, findings = examine(site)
    lines = list(doctor.describe(findings))
    assert lines[-1] == "all well"
    assert any(line.split() == ["torch", findings["versions"]["torch"]["installed"]] for line in lines)
    lines = list(doctor.describe(findings | {"problems": ["a", "b"]}))
    assert lines[-3:] == ["problem: a", "problem: b", "2 problem(s)"]
