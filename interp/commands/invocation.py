"""How a command is called: options from the line, from ``--set`` and from a file; and the echo beside what it wrote.

A command joins the line through :func:`enroll`. One that does long work is ``configured``: it also takes
``--config FILE`` (TOML or JSON, options by name) and ``--set NAME=VALUE``. What stands on the line wins over ``--set``,
``--set`` over the file, the file over the defaults. It keeps what it was asked by :meth:`Call.keep`; the file that this
writes is itself a ``--config``.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from interp.errors import InputError, StoreError, nearest

__all__ = ["ECHO", "Call", "Command", "enroll", "require_file", "require_place"]

ECHO = "command.json"
SCHEMA = "interp-command/1"
_FURTHER, _WORDS = "interp.further", "interp.words"
_SPOKEN = ("config", "settings", "as_json", "dry_run", "help")
"""Parameters that decide how a command speaks, or where it reads its options: no part of a configuration."""

_Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Options by name from a .toml or .json file, such as a command.json."),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One option, over the file's; may be repeated."),
]


class Command(TyperCommand):
    """A subcommand that remembers its words and, where it has ``--config`` and ``--set``, reads them first."""

    further: Callable[[], Mapping[str, Any]] | None = None
    """The further names that a configuration may hold, asked only where there is one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Words into parameters; the configuration becomes the context's defaults."""
        ctx.meta[_WORDS] = list(args)
        if not ctx.resilient_parsing and any(param.name == "settings" for param in self.params):
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            self._configure(ctx, given.get("config"), given.get("settings") or ())
        return super().parse_args(ctx, args)

    def _configure(self, ctx: Any, file: str | None, settings: Sequence[str]) -> None:
        if file is None and not settings:
            return
        params = {_key(param): param for param in self.params if param.name not in _SPOKEN}
        further = {} if self.further is None else dict(self.further())
        mine: dict[str, Any] = {}
        others: dict[str, Any] = {}
        written = () if file is None else _read(Path(file), ctx.command_path).items()
        for origin, name, value in (
            *((f"--config {file}", name, value) for name, value in written),
            *(("--set", *_split(setting)) for setting in settings),
        ):
            key = name.replace("-", "_")
            if key in params:
                before = mine.get(key) if origin == "--set" else None
                mine[key] = _fitted(params[key], value, before, where=f"{origin}: {name}")
            elif key in further:
                others[key] = _value(value) if origin == "--set" else value
            else:
                known = [*params, *further]
                raise typer.BadParameter(
                    f"{name!r} is no option of `{ctx.command_path}`{nearest(key, known)}", param_hint=origin
                )
        ctx.default_map = {params[key].name: value for key, value in mine.items() if value is not None}
        ctx.meta[_FURTHER] = others


class Call:
    """What a command may know of how it was called; it asks for one by a parameter ``call: Call``."""

    def __init__(self, context: Any) -> None:
        self._context = context

    @property
    def line(self) -> str:
        """What was typed, quoted for a shell."""
        return shlex.join([*self._context.command_path.split(), *self._context.meta.get(_WORDS, [])])

    @property
    def further(self) -> dict[str, Any]:
        """What the configuration says besides the command's own options, with values as TOML or JSON has them."""
        return dict(self._context.meta.get(_FURTHER, {}))

    def keep(self, folder: Path, *, name: str = ECHO) -> None:
        """Write what was asked beside what will be written: the line, every option as resolved, versions.

        Under torchrun the first process writes. The file names no time and no place of its own, so that the same
        command writes the same bytes; ``--config`` reads it back.

        Raises
        ------
        InputError
            The folder cannot be written.
        """
        from interp.runs.files import ensure_folder, write_json_atomic
        from interp.runs.provenance import versions

        if int(os.environ.get("RANK", "0")):
            return
        ensure_folder(folder)
        context = self._context
        options = {
            _key(one): context.params[one.name]
            for one in context.command.params
            if one.name in context.params and one.name not in _SPOKEN
        }
        record = {
            "schema": SCHEMA,
            "command": context.command_path,
            "line": self.line,
            "options": json.loads(json.dumps(options | self.further, default=str)),
            "versions": versions(),
        }
        write_json_atomic(folder / name, record)


def enroll(
    app: typer.Typer,
    name: str,
    run: Callable[..., Any],
    *,
    configured: bool = False,
    further: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Add ``run`` to ``app`` as the subcommand ``name``; a parameter ``call: Call`` of it is filled in.

    Parameters
    ----------
    configured
        It takes ``--config`` and ``--set`` too; for work worth keeping a file for.
    further
        Names that a configuration may hold besides the command's own options, which :attr:`Call.further` hands over;
        called only where there is a configuration.
    """
    signature = inspect.signature(run, eval_str=True)
    wants_call = "call" in signature.parameters

    @functools.wraps(run)
    def called(context: Any, **given: Any) -> Any:
        for read_before in ("config", "settings"):
            given.pop(read_before, None)
        return run(**given, **({"call": Call(context)} if wants_call else {}))

    kind = inspect.Parameter.KEYWORD_ONLY
    first = inspect.Parameter("context", kind, annotation=typer.Context)
    own = [one.replace(kind=kind) for name, one in signature.parameters.items() if name != "call"]
    more = [
        inspect.Parameter("config", kind, default=None, annotation=_Config),
        inspect.Parameter("settings", kind, default=None, annotation=_Settings),
    ]
    parameters = [first, *own, *(more if configured else [])]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    made = type("Command", (Command,), {"further": staticmethod(further) if further else None})
    app.command(name, cls=made)(called)


def require_file(path: Path | None, *, what: str = "text file") -> None:
    """Refuse a file that is not there before any model is loaded.

    Raises
    ------
    InputError
        With the path, and whether it is a folder.
    """
    if path is not None and not path.is_file():
        raise InputError(f"no {what} {str(path)!r}" + (" (it is a folder)" if path.is_dir() else ""))


def require_place(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, before any work and without making it.

    Raises
    ------
    InputError
        With the path that is in the way.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"cannot write {folder}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise InputError(f"cannot write {folder}: choose a folder that you may write to")


def _read(file: Path, command: str) -> dict[str, Any]:
    """The options that a file holds; an echo's are those of the same command only."""
    from interp.runs.files import read_json

    if file.suffix not in (".toml", ".json"):
        raise InputError(f"--config {file}: a .toml or .json file is expected")
    if not file.is_file():
        raise InputError(
            f"--config {file}: " + ("it is a folder" if file.is_dir() else "there is no such file")
        )
    try:
        values = read_json(file) if file.suffix == ".json" else tomllib.loads(file.read_text("utf-8"))
    except (StoreError, ValueError) as error:  # a TOML or a decoding error is a ValueError
        raise InputError(f"--config {file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {file}: options by name are expected, not a {type(values).__name__}")
    if str(values.get("schema", "")).startswith("interp-command/"):
        if values["schema"] != SCHEMA or values.get("command") != command:
            raise InputError(
                f"--config {file} was written by `{values.get('command')}` ({values['schema']}), not by `{command}`"
            )
        values = values.get("options", {})
    return values


def _key(param: Any) -> str:
    """What a configuration calls a parameter: its long option, or an argument's name."""
    long = [name for name in param.opts if name.startswith("--")]
    return (long[0][2:] if long else param.name).replace("-", "_")


def _split(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"{setting!r} is not NAME=VALUE, such as seed=3", param_hint="--set")
    return name.strip(), value.strip()


def _value(text: str) -> Any:
    """As JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fitted(param: Any, value: Any, before: Any, *, where: str) -> Any:
    """``value`` as the parameter's own parser takes it: words for all but lists and switches."""
    repeated = param.multiple if hasattr(param, "multiple") else param.nargs == -1
    if repeated:
        if isinstance(value, str) and value.startswith("["):
            value = _value(value)
        items = value if isinstance(value, list) else [value]
        return None if value is None else [*(before or ()), *(str(item) for item in items)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list | dict):
        raise typer.BadParameter(f"one value is expected, not {value!r}", param_hint=where)
    return str(value)
