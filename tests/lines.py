"""The real command line, walked and parsed without being run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from interp.cli import build


@cache
def root() -> Any:
    return typer.main.get_command(build())


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that lead to it."""
    for name, command in sorted((group or root()).commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def help_of(command: Any, path: tuple[str, ...]) -> str:
    return command.get_help(command.make_context(" ".join(("interp", *path)), [], resilient_parsing=True))


def parsed(line: str) -> dict[str, Any]:
    """The parameters of a line such as ``interp probe mini --out x``; raises what the command would."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    assert words.pop(0) == "interp", line
    command: Any = root()
    path = ["interp"]
    while hasattr(command, "commands"):
        while words[0] in ("-v", "-q", "--verbose", "--quiet"):
            words.pop(0)
        if words[0] in ("--version", "--help", "--install-completion", "--show-completion"):
            return {}
        assert words[0] in command.commands, f"{line}: there is no {words[0]!r}"
        path.append(words[0])
        command = command.commands[words.pop(0)]
    if "--help" in words:
        return {}
    return command.make_context(" ".join(path), words).params


def lines_of(text: str) -> list[str]:
    """The lines of a text that call ``interp``, with those that go on in the next joined."""
    whole = text.replace("\\\n", " ")
    return [line.strip() for line in whole.splitlines() if line.strip().startswith("interp ")]
