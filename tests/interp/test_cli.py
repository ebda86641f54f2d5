"""The command line: exit codes, where words go, and plugins that fail without taking the others along."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest
import typer

from interp import cli
from interp._version import __version__
from interp.errors import InputError, SiteError


class Plugin(EntryPoint):
    """An entry point that loads what the test gives it."""

    def __init__(self, name: str, loaded: Callable[[], Callable[[typer.Typer], None]]) -> None:
        super().__init__(name, f"a.plugin:{name}", cli.GROUP)
        vars(self)["load"] = loaded  # entry points refuse ordinary assignment


def plugin(name: str, command: Callable[..., object]) -> Plugin:
    return Plugin(name, lambda: lambda app: app.command(name)(command))


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The plugins that `cli.build` will find; a test fills the list."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(cli, "entry_points", lambda *, group: found)
    return found


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_every_registered_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    told = capsys.readouterr()
    for name in ("analyze", "capture", "doctor"):
        assert f"\n  {name} " in told.out
    assert "cannot be loaded" not in told.out
    assert told.err == ""


@pytest.mark.parametrize("name", ["analyze", "capture", "doctor"])
def test_the_help_of_each_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"interp {name}" in capsys.readouterr().out.partition("xample")[2]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"interp-toolkit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: interp"),
        (["nonsense"], "No such command 'nonsense'"),
        (["doctor", "--jsno"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_2_and_speaks_on_standard_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert message in told.err + told.out
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("the text is empty"), "error: the text is empty\n"),
        (SiteError("no site 'a'; did you mean 'b'?"), "error: no site 'a'; did you mean 'b'?\n"),
        (PermissionError(13, "Permission denied", "/out"), "error: [Errno 13] Permission denied: '/out'\n"),
        (OSError(28, "No space left on device"), "error: [Errno 28] No space left on device\n"),
    ],
)
def test_a_refusal_exits_with_1_and_one_line_on_standard_error(
    plugins: list[EntryPoint], error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.append(plugin("refuse", raising(error)))
    assert cli.main(["refuse"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", message)


def test_a_defect_of_ours_is_not_dressed_as_a_refusal(plugins: list[EntryPoint]) -> None:
    plugins.append(plugin("fail", raising(ZeroDivisionError("a defect"))))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_an_interrupt_exits_with_130_and_says_what_remains(
    plugins: list[EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.append(plugin("work", raising(KeyboardInterrupt())))
    assert cli.main(["work"]) == 130
    assert "interrupted: what is on disk is whole" in capsys.readouterr().err


def test_a_command_may_choose_its_exit_code(plugins: list[EntryPoint]) -> None:
    plugins.append(plugin("check", raising(typer.Exit(1))))
    assert cli.main(["check"]) == 1


def test_a_plugin_that_cannot_be_loaded_says_so_and_leaves_the_others_alone(
    plugins: list[EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    def badly_signed(x: undefined_name) -> None:  # noqa: F821  (typer finds it only when it compiles the command)
        """Never reached."""

    plugins += [
        EntryPoint(name="absent", value="no_such_module:register", group=cli.GROUP),
        Plugin("exploding", lambda: raising(RuntimeError("at registration"))),  # type: ignore[arg-type]
        plugin("badly-signed", badly_signed),
        plugin("well", lambda: typer.echo("done")),
    ]
    assert cli.main(["well"]) == 0
    assert capsys.readouterr().out == "done\n"
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out.count("(cannot be loaded: ") == 3
    assert cli.main(["absent", "any", "--option", "at-all"]) == 1
    told = capsys.readouterr().err
    assert "error: the command 'absent' cannot be loaded from 'no_such_module:register'" in told
    assert "No module named 'no_such_module'; run `interp doctor`" in told


def test_log_lines_go_to_standard_error_as_loud_as_asked(
    plugins: list[EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger("sae.training"), level)(f"a {level}")

    plugins.append(plugin("work", work))
    told = []
    for options in (["-q"], [], ["-v"]):
        assert cli.main([*options, "work"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        told.append([line.rpartition("a ")[2] for line in err.splitlines()])
    assert told == [["warning"], ["info", "warning"], ["debug", "info", "warning"]]


@pytest.mark.parametrize(
    "start", [["-m", "interp"], ["-c", "import sys; from interp.cli import main; sys.exit(main())"]]
)
def test_the_process_exits_with_the_code(start: list[str]) -> None:
    def run(*arguments: str) -> int:
        return subprocess.run([sys.executable, *start, *arguments], capture_output=True).returncode

    assert run("--version") == 0
    assert run("nonsense") == 2
