"""The `interp` command: composes what each package registers under the entry-point group `interp.commands`.

Nothing heavy is imported here: `interp --help` needs no torch. A subcommand is a function `register(app)` in a light
module, which imports what it needs inside its body. Exit codes: 0 done, 1 an `InterpError` or a failed check, 2 wrong
usage, 130 interrupted. Data goes to standard output, everything said about the work to standard error.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from interp.commands.saying import PlainFormatter, say
from interp.errors import InterpError

GROUP = "interp.commands"
PACKAGES = ("interp", "probes", "sae", "circuits")
MARKER = re.compile(r"^__distribution__\s*=\s*\(?\s*[\"']interp-toolkit[\"']", re.MULTILINE)
"""What the head of each of our packages says, by which it is told from another of the same name."""
LENIENT = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

logger = logging.getLogger("interp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` defaults to the process's own."""
    try:
        with _remembering_interrupts():
            command = typer.main.get_command(build())
            command(args=None if arguments is None else list(arguments), prog_name="interp")
    except KeyboardInterrupt:  # before the command itself began
        return _interrupted()
    except InterpError as error:
        return _fail(str(error))
    except OSError as error:
        # Full disks and unwritable folders are the user's to mend, not a traceback's to explain.
        return _fail(str(error))
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return _interrupted() if code == 130 else code
    return 0


_seen: list[int] = []
"""The interrupts that came while the command ran."""


@contextmanager
def _remembering_interrupts() -> Iterator[None]:
    """Within: Ctrl-C raises KeyboardInterrupt as ever, and is remembered should some library swallow that."""
    _seen.clear()
    ordinary = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ordinary or threading.current_thread() is not threading.main_thread():
        yield  # ignored under nohup, another's to handle, or not ours to set
        return

    def handle(number: int, frame: object) -> None:
        _seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def raise_if_interrupted() -> None:
    """Raise the KeyboardInterrupt that was swallowed since the command began: imports and loading do."""
    if _seen:
        raise KeyboardInterrupt


def _interrupted() -> int:
    said = (
        "what is on disk is whole; where the command keeps what it finished, the same one goes on from there"
    )
    say(f"interrupted: {said}", err=True)
    return 130


def build() -> typer.Typer:
    """The application with every registered subcommand; one that cannot be loaded says so when it is called."""
    app = typer.Typer(
        add_completion=True,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain text: rich costs start-up time and breaks lines of piped output
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start here: interp analyze --out report   (works offline, on an embedded network)",
    )
    app.callback()(_root)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            plugin = load(entry)
        except Exception as error:  # noqa: BLE001  (a plugin may fail in any way; the others must still work)
            _register_broken(app, entry, error)
        else:
            app.registered_commands += plugin.registered_commands
            app.registered_groups += plugin.registered_groups
    return app


def load(entry: EntryPoint) -> typer.Typer:
    """The subcommands of one plugin, compiled once, so that a bad signature fails here and not in the shared app."""
    require_ours(entry.module.partition(".")[0])
    plugin = typer.Typer(rich_markup_mode=None)
    entry.load()(plugin)
    typer.main.get_group(plugin)
    return plugin


def require_ours(package: str) -> None:
    """Refuse to run a package of another distribution that took the name of one of ours.

    Raises
    ------
    InterpError
        The package of that name is not this toolkit's.
    """
    if package not in PACKAGES or package == "interp":
        return
    found = find_spec(package)
    origin = None if found is None else found.origin
    if origin is None or not MARKER.search(Path(origin).read_text("utf-8", errors="replace")):
        raise InterpError(
            f"the package {package!r} ({origin or 'no file'}) is not ours; `interp doctor` says more"
        )


def _say_version(wanted: bool) -> bool:
    if wanted:
        from interp._version import __version__

        say(f"interp-toolkit {__version__}")
        raise typer.Exit
    return wanted


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_say_version)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Look inside a network: capture its activations, measure, probe, and report."""
    _speak_on_stderr(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def _speak_on_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    form = "%(levelname)s %(name)s: %(message)s" if level < logging.INFO else "%(message)s"
    handler.setFormatter(PlainFormatter(form))
    for name in PACKAGES:
        package_logger = logging.getLogger(name)
        package_logger.handlers = [handler]  # replaced, not added: main() may run more than once in a process
        package_logger.setLevel(level)
    # What the model libraries say about themselves, and their bars in a log file. They read these when imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error" if level >= logging.INFO else "info")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _fail(message: str) -> int:
    say(f"error: {message}", err=True)
    logger.debug("raised here", exc_info=True)
    return 1


def _register_broken(app: typer.Typer, entry: EntryPoint, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"

    def refuse() -> None:
        raise InterpError(
            f"the command {entry.name!r} cannot be loaded from {entry.value!r}: {reason}; run `interp doctor`"
        )

    app.command(entry.name, help=f"(cannot be loaded: {reason})", context_settings=LENIENT)(refuse)
