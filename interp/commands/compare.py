"""`interp compare`: two studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.commands.invocation import Call, enroll, require_file, require_place
from interp.commands.options import AsJson, Device, Preset, Resume, Seed, Texts
from interp.commands.saying import say

if TYPE_CHECKING:
    from interp.study.comparing import Comparison

_SIDE = "A folder that `interp analyze` wrote; or a model (also net.py:make), which is studied first."


def register(app: typer.Typer) -> None:
    """Add `compare` to the command line."""
    enroll(app, "compare", compare, configured=True)


def compare(  # noqa: PLR0913 - a command's options
    call: Call,
    a: Annotated[str, typer.Argument(help=_SIDE)],
    b: Annotated[str, typer.Argument(help=_SIDE)],
    out: Annotated[Path, typer.Option(help="The folder to write the page into.")] = Path("comparison"),
    texts: Texts = None,
    preset: Preset = "standard",
    seed: Seed = 0,
    device: Device = "auto",
    resume: Resume = True,
    as_json: AsJson = False,
) -> None:
    """Set two studies against each other: curves over the layers, similarity on the same tokens, every figure.

    Studies of other tokens, presets or versions are shown side by side and not subtracted; the page says why. Prints
    the path of the page. Exit code 1 if a station of a model that was studied here failed.

    Examples:

        interp compare report other-report --out comparison

        interp compare group:C59 group:D15 --preset quick --out comparison
    """
    from interp.study.comparing import compare as compared

    require_file(texts)
    require_place(out)
    call.keep(out)
    options: dict[str, Any] = {"preset": preset, "seed": seed, "device": device, "resume": resume}
    if texts is not None:
        options["texts"] = texts
    found = compared(a, b, out=out, **options)
    _say(found, as_json=as_json)
    if found.a.failed or found.b.failed:
        raise typer.Exit(1)


def _say(found: Comparison, *, as_json: bool) -> None:
    if not as_json:
        say(str(found.html))
        return
    import json

    from interp.report.content import plain

    record = {
        "html": str(found.html),
        "json": str(found.json),
        "hurdles": plain(found.hurdles),
        "figures": len(found.rows),
        "judged": found.judged,
        "differ": plain(found.differing),
    }
    say(json.dumps(record, indent=2))
