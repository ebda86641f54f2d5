"""What every command keeps to: an example that parses, one name for one thing, exit codes, and errors that help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from interp import cli
from interp.commands import options
from interp.commands.invocation import Call, enroll
from tests.lines import commands, help_of, lines_of, parsed

COMMANDS = list(commands())
EACH = pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])

FEW = {
    "analyze": ["mini"],
    "audit": ["mini"],
    "capture": ["mini", "--texts", "TEXTS", "--sites", "blocks.0.hook_resid_post"],
    "compare": ["mini", "group:C59"],
    "metrics": ["mini"],
    "probe": ["mini"],
    "circuit find": ["ioi", "--model", "mini"],
    "circuit report": ["ioi", "--model", "mini"],
    "sae train": ["mini", "--site", "blocks.0.hook_resid_post", "--set", "d_sae=8", "--set", "k=2"],
    "sae eval": ["CODER", "mini", "--site", "blocks.0.hook_resid_post"],
    "sae dashboard": ["CODER", "mini", "--site", "blocks.0.hook_resid_post"],
    "sae convert": ["CODER"],
}
"""The fewest words with which a command begins its work."""


def named(command: Any) -> dict[str, Any]:
    """Options by their long name."""
    return {
        max(one.opts, key=len): one for one in command.params if any(opt.startswith("--") for opt in one.opts)
    }


def begun(path: tuple[str, ...], tmp_path: Path, **other: str) -> list[str]:
    """The words of a call of the command, ``other`` in the place of what is named there."""
    (tmp_path / "texts.txt").write_text("a text of some words\n\nanother text of words", encoding="utf-8")
    place = {"TEXTS": str(tmp_path / "texts.txt"), "CODER": str(tmp_path / "coder")} | other
    known = [name for name, _ in COMMANDS if name == path]
    assert known
    words = [place.get(word, word) for word in FEW[" ".join(path)]]
    needs_out = "--out" in named(dict(COMMANDS)[path])
    return [*path, *words, *(["--out", place.get("OUT", str(tmp_path / "out"))] if needs_out else [])]


def coder(tmp_path: Path) -> None:
    import sae

    sae.save(sae.Coder(128, 8, 2), tmp_path / "coder")


@EACH
def test_the_help_gives_an_example_that_the_command_takes(
    path: tuple[str, ...], command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = command.help.partition("Example")[2]
    examples = lines_of("\n".join(part.removeprefix(":").strip() for part in shown.splitlines())) or lines_of(
        shown.partition(":")[2]
    )
    assert examples, command.help
    for line in examples:
        assert line.startswith(" ".join(("interp", *path))) or path[0] in line
        if "--config " in line:
            Path(line.split("--config ")[1].split()[0]).write_text("")
        assert parsed(line) or not command.params
    assert " ".join(examples[0].split()) in " ".join(help_of(command, path).split())


@EACH
def test_every_command_speaks_json_and_says_what_an_option_is_for(
    path: tuple[str, ...], command: Any
) -> None:
    assert "--json" in named(command)
    assert [one.name for one in command.params if not one.help] == []
    if "--dry-run" in named(command):
        assert {"--config", "--set", "--out", "--seed"} <= set(named(command))


def test_an_option_of_one_name_is_one_thing() -> None:
    """The same text, kind and bounds wherever it stands; what a command writes or reads is its own to say."""
    own = {
        "--out",
        "--site",
        "--model",
        "--graph",
        "--sites",
        "--texts",
        "--method",
        "--max-tokens",
        "--label",
    }
    seen: dict[str, dict[str, list[str]]] = {}
    for path, command in COMMANDS:
        for name, one in named(command).items():
            kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else one.type
            told = json.dumps([one.help, str(kind), one.metavar])
            seen.setdefault(name, {}).setdefault(told, []).append(" ".join(path))
    assert {name: told for name, told in seen.items() if len(told) > 1 and name not in own} == {}
    helps = {
        (name, one.help)
        for _, c in COMMANDS
        for name, one in named(c).items()
        if name in ("--texts", "--sites")
    }
    assert len(helps) == 2


@EACH
def test_a_misspelt_option_exits_with_2_and_names_the_nearest(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*path, "--jsn"]) == 2
    told = capsys.readouterr()
    assert "--json" in told.err
    assert told.out == ""
    if "--set" in named(command):
        key = next(
            name for name in named(command) if name not in ("--config", "--set", "--json", "--dry-run")
        )
        words = [*path, "--set", f"{key[2:]}x=1"]
        assert cli.main(words) == 2
        told = capsys.readouterr()
        assert "is no option of" in told.err
        assert repr(key[2:].replace("-", "_")) in told.err


@pytest.mark.parametrize("name", [n for n in FEW if n != "sae convert"])
def test_a_model_that_is_not_there_is_named_with_the_nearest(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coder(tmp_path)
    words = ["planted:two-hops" if word == "mini" else word for word in begun(tuple(name.split()), tmp_path)]
    task = "planted" if name.startswith("circuit") else "ioi"
    assert cli.main([task if word == "ioi" else word for word in words]) == 1
    told = capsys.readouterr()
    assert "two-hop'" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@pytest.mark.parametrize("name", [n for n, words in FEW.items() if n not in ("audit", "sae eval")])
def test_a_folder_that_cannot_be_written_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coder(tmp_path)
    (tmp_path / "file").write_text("")
    blocked = str(tmp_path / "file" / "out")
    assert cli.main(begun(tuple(name.split()), tmp_path, OUT=blocked)) == 1
    told = capsys.readouterr()
    assert "error: cannot " in told.err
    assert str(tmp_path / "file") in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyze", "--texts", "absent.txt"], "no text file 'absent.txt'"),
        (["capture", "mini", "--texts", "absent.txt", "--sites", "*", "--out", "o"], "no text file"),
        (["probe", "mini", "--labels", "absent.csv", "--out", "o"], "no file of labels 'absent.csv'"),
        (["circuit", "find", "absent.csv"], "no file of pairs 'absent.csv'"),
        (["circuit", "report", "ioi", "--graph", "absent.safetensors"], "no graph 'absent.safetensors'"),
        (["circuit", "diff", "absent.json", "b.json"], "absent.json"),
        (["sae", "train", "mini", "--texts", "absent.txt", "--out", "o"], "no text file"),
        (["sae", "eval", "absent", "mini", "--site", "s", "--texts", "absent.txt"], "no text file"),
        (["sae", "dashboard", "absent", "mini", "--site", "s", "--texts", "absent.txt"], "no text file"),
        (["sae", "convert", "absent", "--out", "o"], "absent"),
        (["verify", "absent"], "absent"),
        (["verify", "absent.json"], "absent.json"),
        (["analyze", "--config", "absent.toml"], "--config absent.toml: there is no such file"),
    ],
)
def test_a_file_that_is_not_there_is_named(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert (told.out, "Traceback" in told.err) == ("", False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A command ``work`` that keeps what it was asked, and all that it was asked."""
    calls: list[dict[str, Any]] = []

    def work(  # noqa: PLR0913
        call: Call,
        model: options.Model = "mini",
        out: Annotated[Path, typer.Option(help="A folder.")] = tmp_path / "out",
        sites: options.Sites = None,
        window: options.Window = None,
        seed: options.Seed = 0,
        resume: options.Resume = True,
    ) -> None:
        """Do it."""
        calls.append({"model": model, "sites": sites, "window": window, "seed": seed, "resume": resume})
        calls[-1]["further"] = call.further
        call.keep(out)

    def build() -> typer.Typer:
        app = typer.Typer(rich_markup_mode=None)
        enroll(app, "work", work, configured=True, further=lambda: {"d_sae": 1})
        app.command("other")(lambda: None)
        return app

    monkeypatch.setattr(cli, "build", build)
    monkeypatch.chdir(tmp_path)
    return calls


def test_the_line_wins_over_set_over_the_file_over_the_defaults(asked: list[dict[str, Any]]) -> None:
    Path("c.toml").write_text(
        'seed = 1\ncontext = 9\nresume = false\nsites = ["a", "b"]\nd-sae = 4\nmodel = "m"\n'
    )
    words = [
        "work",
        "--config",
        "c.toml",
        "--set",
        "seed=2",
        "--set",
        "context=8",
        "--set",
        "d_sae=[5]",
        "--seed",
        "3",
    ]
    assert cli.main(words) == 0
    assert asked == [
        {
            "model": "m",
            "sites": ["a", "b"],
            "window": 8,
            "seed": 3,
            "resume": False,
            "further": {"d_sae": [5]},
        }
    ]
    assert cli.main(["work", "--set", "sites=a", "--set", 'sites=["b"]', "--set", "resume=no"]) == 0
    assert (asked[1]["sites"], asked[1]["resume"], asked[1]["seed"]) == (["a", "b"], False, 0)


def test_what_was_asked_is_kept_and_asks_for_the_same_again(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    words = ["work", "group:S4", "--sites", "blocks.*.x", "--set", "d_sae=3", "--no-resume", "--seed", "7"]
    assert cli.main(words) == 0
    kept = json.loads((tmp_path / "out" / "command.json").read_text())
    assert kept["line"] == "interp work group:S4 --sites 'blocks.*.x' --set d_sae=3 --no-resume --seed 7"
    assert kept["options"] == {
        "model": "group:S4", "out": str(tmp_path / "out"), "sites": ["blocks.*.x"], "context": None, "seed": 7,
        "resume": False, "d_sae": 3,
    }  # fmt: skip
    assert kept["versions"]["interp-toolkit"]
    assert cli.main(["work", "--config", "out/command.json"]) == 0
    assert asked[0] == asked[1]
    again = json.loads((tmp_path / "out" / "command.json").read_text())
    assert again["options"] == kept["options"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "sed=1"], 2, "'sed' is no option of `interp work`; did you mean 'seed'"),
        (["--set", "json=true"], 2, "'json' is no option"),
        (["--set", "seed"], 2, "'seed' is not NAME=VALUE"),
        (["--set", "seed=-1"], 2, "--seed"),
        (["--set", "seed=[1]"], 2, "--seed"),
        (["--set", "resume=maybe"], 2, "--resume"),
        (["--config", "sed.toml"], 2, "--config sed.toml: 'sed' is no option"),
        (["--config", "list.toml"], 2, "one value is expected, not [1, 2]"),
        (["--config", "torn.toml"], 1, "error: --config torn.toml cannot be read"),
        (["--config", "rows.json"], 1, "options by name are expected, not a list"),
        (["--config", "other.json"], 1, "was written by `interp probe`"),
        (["--config", "c.yaml"], 1, "a .toml or .json file is expected"),
        (["--config", "."], 1, "a .toml or .json file is expected"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(
    asked: list[dict[str, Any]], words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sed.toml").write_text("sed = 1")
    Path("list.toml").write_text("seed = [1, 2]")
    Path("torn.toml").write_text("seed = ")
    Path("rows.json").write_text("[1]")
    Path("other.json").write_text('{"schema": "interp-command/1", "command": "interp probe", "options": {}}')
    assert cli.main(["work", *words]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert asked == []


def test_what_a_shell_is_offered_is_what_there_is() -> None:
    from circuits.attribution import METHODS
    from interp.tasks import NAMES
    from interp.toys.collection import names
    from sae.commands.convert import FORMATS
    from sae.formats import FOREIGN

    assert names() == options.NETWORKS
    assert options.TASKS == NAMES
    assert options.METHODS == METHODS
    assert ("native", *FOREIGN) == FORMATS


OFFERED = [
    (["cap"], ["capture"]),
    (["analyze", "group:S"], ["group:S4", "group:S5"]),
    (["circuit", "find", "gr"], ["greater_than"]),
    (["circuit", "find", "ioi", "--model", "induc"], ["induction"]),
    (["circuit", "find", "ioi", "--method", "eap-ig-"], ["eap-ig-activations"]),
    (["probe", "mini", "--method", "ri"], ["ridge"]),
    (["sae", "train", "--dr"], ["--dry-run"]),
    (["audit", "mini", "--backend", "transformer_"], ["transformer_lens"]),
]
COMPLETE = """
import contextlib, io, json, os, sys
from interp.cli import main
said = []
for shell, words in json.loads(sys.argv[1]):
    line = " ".join(["interp", *words])
    os.environ |= {
        "_INTERP_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert main([]) == 0
    said.append(told.getvalue())
assert not {"torch", "numpy", "pandas"} & set(sys.modules)
print(json.dumps(said))
"""


def test_a_shell_completes_commands_options_and_values_without_torch() -> None:
    """Through the protocol by which each shell asks; bash takes what is offered line by line."""
    asked = [["bash", words] for words, _ in OFFERED]
    asked += [[shell, ["circuit", "find", "gr"]] for shell in ("zsh", "fish")]
    ran = subprocess.run([sys.executable, "-c", COMPLETE, json.dumps(asked)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    *bash, zsh, fish = json.loads(ran.stdout)
    assert [told.split() for told in bash] == [offered for _, offered in OFFERED]
    for told in (zsh, fish):
        assert "greater_than" in told
        assert "docstring" not in told
