"""`interp doctor`: is this installation whole, what does it see, and who has overwritten what.

Answers: which versions are installed and do they meet our floors; which devices and threads there are; do the names
`interp`, `probes`, `sae`, `circuits` still mean this toolkit (PyPI has an unrelated `circuits` and `probes` that
overwrite ours without a word, and a file `sae.py` in the working folder hides ours); which plugins fail to load.
Nothing found under those names is imported to find out: a stranger's code is read, not run.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata as metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from interp.cli import GROUP, MARKER, PACKAGES, load
from interp.commands.invocation import enroll
from interp.commands.options import AsJson
from interp.commands.saying import say

DISTRIBUTION = "interp-toolkit"
REINSTALL = f"then reinstall {DISTRIBUTION} (pip install --force-reinstall --no-deps)"


def register(app: typer.Typer) -> None:
    """Add `doctor` to the command line."""
    enroll(app, "doctor", doctor)


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: versions, devices, overwritten or hidden packages, plugins.

    Exit code 1 if something is wrong.

    Example: interp doctor --json > doctor.json
    """
    findings = diagnose()
    if as_json:
        import json

        say(json.dumps(findings, indent=2))
    else:
        for line in describe(findings):
            say(line)
    if findings["problems"]:
        raise typer.Exit(1)


def diagnose() -> dict[str, Any]:
    """Everything `interp doctor` finds, as JSON-able values; `problems` is empty when all is well."""
    dependencies = versions()
    claims = metadata.packages_distributions()
    # A name that is not ours is not imported, not even through a plugin of ours.
    loaded = plugins(untrusted=[name for name in PACKAGES if not _is_ours(Path(origin(name)))])
    problems = [f"{name}: {row['problem']}" for name, row in dependencies.items() if row["problem"]]
    problems += [problem for name in PACKAGES for problem in package_problems(name, claims.get(name, []))]
    problems += changed_files()
    problems += [
        f"plugin {name} ({row['value']}): {row['problem']}" for name, row in loaded.items() if row["problem"]
    ]
    return {
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "versions": dependencies,
        "devices": devices(),
        "packages": {name: origin(name) for name in PACKAGES},
        "plugins": loaded,
        "problems": problems,
    }


def describe(findings: dict[str, Any]) -> Iterator[str]:
    """The lines a person reads."""
    python, seen = findings["python"], findings["devices"]
    yield f"python    {python['version']}  {python['executable']}  {python['platform']}"
    yield f"devices   {', '.join(seen['devices'])}; {seen['cpus']} CPUs, {seen['torch_threads']} torch threads"
    yield f"hub       {'offline (HF_HUB_OFFLINE)' if seen['hub_offline'] else 'online'}; cache {seen['hub_cache']}"
    for title, rows in (("versions", findings["versions"]), ("packages", findings["packages"])):
        yield f"{title}:"
        for name, row in rows.items():
            yield f"  {name:<18} {row if isinstance(row, str) else (row['installed'] or 'missing')}"
    yield "plugins:"
    for name, row in findings["plugins"].items():
        yield f"  {name:<26} {'FAILS' if row['problem'] else 'ok'}"
    for problem in findings["problems"]:
        yield f"problem: {problem}"
    yield f"{len(findings['problems'])} problem(s)" if findings["problems"] else "all well"


def versions() -> dict[str, dict[str, str | None]]:
    """Of each dependency in our metadata (extras aside): the installed version, the floor, what is wrong with it."""
    from packaging.requirements import Requirement

    rows: dict[str, dict[str, str | None]] = {}
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        problem = (
            "is not installed (running from a source folder?); commands and stations need `pip install -e .`"
        )
        return {DISTRIBUTION: {"installed": None, "wanted": None, "problem": problem}}
    rows[DISTRIBUTION] = {"installed": metadata.version(DISTRIBUTION), "wanted": None, "problem": None}
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        row: dict[str, str | None] = {
            "installed": None,
            "wanted": str(requirement.specifier),
            "problem": None,
        }
        try:
            row["installed"] = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            row["problem"] = f"is not installed; {requirement} is needed"
        else:
            if not requirement.specifier.contains(row["installed"], prereleases=True):
                row["problem"] = f"{row['installed']} is installed; {requirement} is needed"
        rows[requirement.name] = row
    return rows


def devices() -> dict[str, Any]:
    """Accelerators, processors and threads as torch sees them, and where the hub cache is."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cache = os.environ.get("HF_HUB_CACHE") or str(
        Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    )
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    seen: dict[str, Any] = {"cpus": cpus, "torch_threads": None, "hub_cache": cache, "hub_offline": offline}
    try:
        import torch
    except Exception as error:  # noqa: BLE001  (a broken torch fails in many ways, and saying so is our work)
        return seen | {"devices": [f"torch cannot be imported: {type(error).__name__}: {error}"]}
    found = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return seen | {"devices": found, "torch_threads": torch.get_num_threads()}


def origin(name: str) -> str:
    """The file that `import name` would run, without running it."""
    spec = importlib.util.find_spec(name)
    return (spec.origin if spec is not None else None) or "nowhere"


def package_problems(name: str, claimants: Sequence[str] = ()) -> list[str]:
    """What is wrong with the top-level name `name`: missing, gutted, overwritten, claimed by others, or hidden.

    `claimants` are the distributions that say they install `name` (ours is none if installed in place).
    """
    problems = []
    where = origin(name)
    if where == "nowhere":
        problems.append(
            f"{name}: no {name}/__init__.py is found (was another package of that name removed?); {REINSTALL}"
        )
    elif not _is_ours(Path(where)):
        problems.append(
            f"{name}: {where} is not ours: another package overwrote it or hides it; remove that, {REINSTALL}"
        )
    others = sorted({other for other in claimants if other.lower().replace("_", "-") != DISTRIBUTION})
    if others:
        names = " ".join(others)
        problems.append(
            f"{name}: also installed by {names}, which writes over our files; pip uninstall {names}, {REINSTALL}"
        )
    here = (Path.cwd() / f"{name}.py", Path.cwd() / name / "__init__.py")
    problems += [
        f"{name}: {file} hides ours in notebooks and `python -m` run from here; rename it"
        for file in here
        if file.is_file() and not _is_ours(file)
    ]
    return problems


def changed_files() -> list[str]:
    """Files of our own wheel whose contents are no longer those that were installed (none if editable)."""
    try:
        files = metadata.distribution(DISTRIBUTION).files or []
    except metadata.PackageNotFoundError:
        return []
    changed = []
    for file in files:
        if file.parts[0] not in PACKAGES or file.hash is None:
            continue
        path = Path(str(file.locate()))
        if not path.is_file():
            changed.append(f"{file} (gone)")
        elif (
            base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
            != file.hash.value
        ):
            changed.append(str(file))
    if not changed:
        return []
    shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    return [f"{DISTRIBUTION}: files differ from those installed: {shown}; {REINSTALL}"]


def plugins(*, untrusted: Sequence[str] = ()) -> dict[str, dict[str, str | None]]:
    """Every registered command and station, loaded; `problem` says why one cannot be, or was not tried."""
    loaders: dict[str, Callable[[metadata.EntryPoint], object]] = {
        GROUP: load,
        "interp.stations": metadata.EntryPoint.load,
    }
    rows: dict[str, dict[str, str | None]] = {}
    for group, loader in loaders.items():
        for entry in sorted(metadata.entry_points(group=group), key=lambda entry: entry.name):
            row: dict[str, str | None] = {"value": entry.value, "problem": None}
            package = entry.module.partition(".")[0]
            try:
                if package in untrusted:
                    row["problem"] = f"not tried, because {package} has a problem of its own"
                else:
                    loader(entry)
            except Exception as error:  # noqa: BLE001  (a plugin may fail in any way; saying how is our work)
                row["problem"] = f"{type(error).__name__}: {error}"
            rows[f"{group}:{entry.name}"] = row
    return rows


def _is_ours(init: Path) -> bool:
    try:
        return MARKER.search(init.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False
