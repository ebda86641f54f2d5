"""The house keeps its promises: what the wheel holds, what an import costs, and how large a room may be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import networkx
import pytest

from interp.lazy import attach

PACKAGES = ("interp", "probes", "sae", "circuits")
HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "transformer_lens",
    "nnsight",
    "plotly",
    "sklearn",
    "scipy",
)
LONGEST = 400


def modules_after(code: str) -> set[str]:
    """The names in sys.modules after `code` ran in a fresh process."""
    script = f"{code}\nimport sys, json; sys.stdout.write('\\n' + json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_exactly_the_four_packages_each_typed(wheel: Path) -> None:
    names = names_in(wheel)
    assert wheel.name.startswith("interp_toolkit-0.1.0-py3-none-any")
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == set(PACKAGES)
    for package in PACKAGES:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_holds_every_asset_of_the_packages(wheel: Path, root: Path) -> None:
    kept = {
        file.relative_to(root).as_posix()
        for package in PACKAGES
        for file in (root / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert kept <= names_in(wheel)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['interp', '--help']\nfrom interp.cli import main; assert main() == 0"
    assert modules_after(code) & {*HEAVY, "rich"} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_no_library_of_the_field(package: str) -> None:
    assert modules_after(f"import {package}; dir({package})") & set(HEAVY) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_can_be_imported(package: str) -> None:
    module = __import__(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    assert module.__distribution__ == "interp-toolkit"


def test_a_lazy_package_finds_names_by_place_alias_and_submodule() -> None:
    find, listing, public = attach(
        "interp",
        {"InputError": "errors", "Nearest": "errors:nearest", "errors": "errors", "_gone": "nowhere"},
    )
    import interp.errors

    assert find("InputError") is interp.errors.InputError
    assert find("Nearest") is interp.errors.nearest
    assert find("errors") is interp.errors
    assert public == ["InputError", "Nearest", "_gone", "errors"]
    assert set(public) <= set(listing())
    with pytest.raises(
        AttributeError, match="module 'interp' has no attribute 'InputErorr'; did you mean 'InputError'?"
    ):
        find("InputErorr")
    with pytest.raises(ModuleNotFoundError, match=r"interp\.nowhere"):
        find("_gone")
    del vars(interp)["Nearest"]  # attach keeps what it found on the package; this name is not one of ours  # pyright: ignore[reportIndexIssue]


def test_no_module_bears_the_name_of_a_public_function_of_its_package(root: Path) -> None:
    clashes = []
    for package in PACKAGES:
        module = __import__(package)
        files = {file.stem for file in (root / package).glob("*.py")}
        clashes += [
            f"{package}.{name}"
            for name in module.__all__
            if name in files and callable(getattr(module, name))
        ]
    assert clashes == []


def test_a_long_file_gives_its_reason(root: Path) -> None:
    silent = []
    for folder in (*PACKAGES, "tests", "benchmarks"):
        for file in (root / folder).rglob("*.py"):
            lines = file.read_text(encoding="utf-8").splitlines()
            if len(lines) > LONGEST and not any(line.startswith("# long:") for line in lines[:30]):
                silent.append(
                    f"{file.relative_to(root)} has {len(lines)} lines and no '# long: reason' in its head"
                )
    assert silent == []


def test_nothing_prints(root: Path) -> None:
    pytest.importorskip("ruff", reason="ruff comes with the dev extra")
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "T20", "--no-cache", *PACKAGES, "tests"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_no_pickle_is_written_or_read(root: Path) -> None:
    banned = ("import pickle", "from pickle", "allow_pickle=True", "weights_only=False", "torch.save(")
    found = [
        f"{file.relative_to(root)}: {word}"
        for package in PACKAGES
        for file in (root / package).rglob("*.py")
        for word in banned
        if word in file.read_text(encoding="utf-8")
    ]
    # one foreign format is nothing else; it is read with weights_only=True
    assert found == ["sae/formats/archives.py: torch.save("]


def imports_of(file: Path, root: Path) -> set[str]:
    """The files of the four packages that ``file`` imports, wherever in it: at the top, in a function, for types."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = {name.replace(".", "/") + ".py" for name in named if name.partition(".")[0] in PACKAGES}
    return {path for path in paths if (root / path).is_file()}


def test_no_file_imports_itself_by_way_of_others(root: Path) -> None:
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    graph = networkx.DiGraph(
        (file.relative_to(root).as_posix(), other) for file in files for other in imports_of(file, root)
    )
    assert graph.number_of_edges() > 1000
    circles = [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert circles == []
