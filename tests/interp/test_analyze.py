"""The main job: what it leaves behind when all goes well, when a station fails, and when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import interp
from interp.cli import main
from interp.errors import InputError, ModelError
from interp.report import read
from interp.study import stations as registry
from interp.study.analysis import analyze
from interp.study.job import layer_sites, prepare
from interp.study.material import gather
from interp.study.planning import plan
from interp.study.stations import Broken, Section, Study, select, stations
from interp.toys import Shape, Transformer
from tests.interp.fake_stations import Fake, failing, interrupting, section


@pytest.fixture
def toy() -> interp.Model:
    shape = Shape(d_vocab=11, n_ctx=6, n_layers=2, d_model=8, n_heads=2, d_mlp=16)
    return interp.load(Transformer(shape, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """The command line logs to the standard error it found; a later test has another."""
    yield
    for name in ("interp", "probes", "sae", "circuits"):
        logging.getLogger(name).handlers.clear()


def register(monkeypatch: pytest.MonkeyPatch, *found: Fake | Broken) -> None:
    monkeypatch.setattr(registry, "stations", lambda: tuple(found))


def reading(study: Study) -> Section:
    """Reads the store, as real stations do."""
    assert study.store is not None
    site = study.store.sites[-1]
    rows = study.store.rows(site, slice(0, 4))
    expected = study.model.capture(study.tokens[:4], site)[site].flatten(0, 1)[:4]
    torch.testing.assert_close(rows, expected)
    assert (study.out / "..").resolve().name == "stations"
    return section(name="good", text=f"{study.store.n_rows} rows, seed {study.seed}")


def test_the_job_visits_every_station_and_writes_page_and_twin(toy, tmp_path, monkeypatch) -> None:
    register(
        monkeypatch,
        Fake("good", 1, reading),
        Fake("absent", 2, reading, why_not="it has no ears"),
        Fake("bad", 3, failing),
    )
    done = analyze(toy, out=tmp_path / "new" / "r", max_tokens=60, seed=5, command=["interp", "analyze"])
    assert [s["status"] for s in done.sections] == ["done", "skipped", "failed"]
    assert done.failed == ("bad",)
    assert not done.interrupted
    page = read(done.json)
    assert [s["status"] for s in page["sections"]] == ["done", "skipped", "failed"]
    assert page["sections"][0]["summary"] == "60 rows, seed 5"
    assert page["sections"][2]["reason"] == "ZeroDivisionError: by zero <b>"
    record = page["provenance"]
    assert record["model"]["weights_sha256"] == toy.fingerprint()
    assert record["seed"] == 5
    assert record["command"] == ["interp", "analyze"]
    assert record["versions"]["torch"] == torch.__version__
    assert len(record["texts_sha256"]) == 64
    events = [json.loads(line) for line in (tmp_path / "new" / "r" / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == [
        "start", "harvested", "station", "finished", "station", "finished", "station", "failed", "end"
    ]  # fmt: skip
    assert "ZeroDivisionError" in events[7]["traceback"]


def test_random_inputs_are_said_loudly_and_are_the_same_for_a_seed(toy) -> None:
    one, two = (gather(toy, max_tokens=60, seed=1) for _ in range(2))
    other = gather(toy, max_tokens=60, seed=2)
    assert torch.equal(one.tokens.ids, two.tokens.ids)
    assert not torch.equal(one.tokens.ids, other.tokens.ids)
    assert one.tokens.ids.shape == (10, 6)
    assert one.tokens.ids.max() < 11
    assert "RANDOM INPUTS" in one.notes[0]
    assert one.sha256 == two.sha256 != other.sha256


def test_an_embedded_network_gets_its_own_inputs_and_labels(tmp_path, monkeypatch) -> None:
    register(monkeypatch)
    job = prepare("group:D15", max_tokens=300)
    assert job.material.tokens.ids.shape == (100, 3)
    assert set(job.material.labels) == {"answer", "left", "right"}
    assert job.material.tokens.strings[0][2] == "="
    assert "trained on 630 of its 900 inputs" in job.material.notes[0]
    page = read(analyze("group:D15", out=tmp_path, max_tokens=300).json)
    assert ["Answers right, n = 100", "100.00%"] in page["facts"]


def test_given_tokens_are_used_as_they_are(toy, tmp_path, monkeypatch) -> None:
    register(monkeypatch, Fake("good", 1, reading))
    done = analyze(toy, out=tmp_path, tokens=torch.arange(10).view(2, 5))
    assert done.sections[0]["summary"] == "10 rows, seed 0"
    with pytest.raises(InputError, match="texts or tokens, not both"):
        analyze(toy, out=tmp_path, tokens=torch.arange(4)[None], texts=["a"])


def test_an_interrupted_job_leaves_a_report_and_goes_on(toy, tmp_path, monkeypatch) -> None:
    first, second, third = (
        Fake("first", 1, section),
        Fake("second", 2, interrupting),
        Fake("third", 3, section),
    )
    register(monkeypatch, first, second, third)
    stopped = analyze(toy, out=tmp_path, max_tokens=60)
    assert stopped.interrupted
    page = read(stopped.json)
    assert [s["status"] for s in page["sections"]] == ["done", "interrupted", "waiting"]
    assert "not complete: The second station, The third station" in page["warnings"][0]
    second.body = section
    whole = analyze(toy, out=tmp_path, max_tokens=60, resume=True)
    assert [s["status"] for s in whole.sections] == ["done"] * 3
    assert (first.n_runs, second.n_runs, third.n_runs) == (1, 2, 1)
    assert read(whole.json)["warnings"][0].startswith("Everything here was measured on RANDOM INPUTS")


def test_resume_computes_anew_what_another_seed_or_no_resume_asks_for(toy, tmp_path, monkeypatch) -> None:
    fake, bad = Fake("good", 1, section), Fake("bad", 2, failing)
    register(monkeypatch, fake, bad)
    analyze(toy, out=tmp_path, max_tokens=60)
    analyze(toy, out=tmp_path, max_tokens=60, resume=True)
    assert (fake.n_runs, bad.n_runs) == (1, 2)  # what failed is tried again
    analyze(toy, out=tmp_path, max_tokens=60, seed=1, resume=True)
    assert fake.n_runs == 2
    analyze(toy, out=tmp_path, max_tokens=60, seed=1)
    assert fake.n_runs == 3
    (tmp_path / "sections" / "good.json").write_text("{torn")
    analyze(toy, out=tmp_path, max_tokens=60, seed=1, resume=True)
    assert fake.n_runs == 4


def test_a_resumed_section_is_the_one_that_was_computed(toy, tmp_path, monkeypatch) -> None:
    register(monkeypatch, Fake("good", 1, section))
    first = read(analyze(toy, out=tmp_path, max_tokens=60).json)
    second = read(analyze(toy, out=tmp_path, max_tokens=60, resume=True).json)
    assert first["sections"] == second["sections"]


def test_layer_sites_follow_the_stream_and_stay_few() -> None:
    deep = interp.load(Transformer(Shape(d_vocab=5, n_ctx=4, n_layers=20, d_model=4, n_heads=1, d_mlp=4)))
    names = [str(site) for site in layer_sites(deep)]
    assert len(names) == 13
    assert names[0] == "blocks.0.hook_resid_pre"
    assert names[-1] == "blocks.19.hook_resid_post"
    shallow = interp.load(Transformer(Shape(d_vocab=5, n_ctx=4, n_layers=1, d_model=4, n_heads=1, d_mlp=4)))
    assert [site.kind for site in layer_sites(shallow)] == ["resid_pre", "resid_mid", "resid_post"]


def test_a_plan_counts_passes_memory_and_disk_and_writes_nothing(toy, tmp_path, monkeypatch) -> None:
    register(monkeypatch, Fake("good", 1, section), Fake("absent", 2, section, why_not="it has no ears"))
    cost = plan(prepare(toy, max_tokens=60), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    capture, good, absent = cost.steps
    assert (capture.forward_passes, capture.disk_bytes) == (10, 5 * 8 * 4 * 60)
    assert (good.forward_passes, good.memory_bytes) == (10, 1000)
    assert good.seconds > 10 * cost.seconds_per_sequence  # the passes, and what the station takes besides
    assert absent.reason == "it has no ears"
    assert cost.seconds == pytest.approx(sum(step.seconds for step in cost.steps))
    assert cost.memory_bytes >= cost.model_bytes


def test_stations_that_cannot_be_imported_stand_as_failures(monkeypatch) -> None:
    from importlib.metadata import EntryPoint

    entries = [
        EntryPoint("gone", "interp.nowhere:STATION", registry.GROUP),
        EntryPoint("odd", "json:dumps", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    gone, odd = stations()
    assert "cannot be imported: ModuleNotFoundError" in gone.reason  # type: ignore[attr-defined]
    assert "lacks name, title" in odd.reason  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="station 'gone'"):
        gone.run(Study(model=None, tokens=None, out=Path()))


def test_an_unknown_station_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no station called 'prob'; did you mean 'probe'"):
        select(["prob"], among=(Fake("probe", 1, section), Fake("sae", 2, section)))


# -- the command ----------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    return main(["analyze", *arguments])


def test_the_command_prints_the_report_and_exits_by_the_stations(tmp_path, monkeypatch, capsys) -> None:
    good, bad = Fake("good", 1, section), Fake("bad", 2, failing)
    register(monkeypatch, good)
    out = str(tmp_path / "r")
    assert run("--out", out, "--max-tokens", "90") == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(Path(out) / "report.html")
    register(monkeypatch, good, bad)
    assert run("group:D15", "--out", out, "--max-tokens", "90", "--json") == 1
    said = capsys.readouterr()
    assert [s["status"] for s in json.loads(said.out)["sections"]] == ["done", "failed"]
    assert "bad station failed: ZeroDivisionError" in said.err
    assert run("group:D15", "--out", out, "--max-tokens", "90", "--stations", "good") == 0
    register(monkeypatch, Fake("stop", 1, interrupting))
    assert run("--out", out, "--max-tokens", "90") == 130
    assert read(Path(out) / "report.json")["sections"][0]["status"] == "interrupted"


def test_a_dry_run_says_the_cost_and_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    register(monkeypatch, Fake("good", 1, section))
    out = tmp_path / "r"
    assert run("group:C59", "--out", str(out), "--dry-run", "--max-tokens", "90") == 0
    table = capsys.readouterr().out
    assert "Capture of 3 sites" in table
    assert "in all, with the weights" in table
    assert run("group:C59", "--out", str(out), "--dry-run", "--json", "--max-tokens", "90") == 0
    assert json.loads(capsys.readouterr().out)["n_sequences"] == 30
    assert run("--out", str(out), "--dry-run", "--json", "--max-tokens", "640") == 0  # mini, by default
    assert json.loads(capsys.readouterr().out)["n_sequences"] == 10
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder"], "no/such/folder"),
        (["{tmp}/foreign"], "holds no config.json (it holds notes.txt)"),
        (["group:C95"], "did you mean 'group:C59'"),
        (["--texts", "{tmp}/absent.jsonl"], "no text file"),
        (["--texts", "{tmp}/foreign"], "(it is a folder)"),
        (["group:C59", "--texts", "{tmp}/foreign/notes.txt"], "has no tokenizer, so it cannot read texts"),
        (["--stations", "nope"], "no station called 'nope'"),
        (["--stations", ","], "--stations names no station"),
        (["--context", "99"], "windows of 99 tokens were asked for; they may hold 2 to 64"),
        (["--context", "9"], "mini's own inputs come in rows of their own length"),
        (["--out", "{tmp}/foreign/notes.txt"], "notes.txt"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
    ],
)
def test_bad_input_is_said_on_stderr_with_exit_code_1(arguments, message, tmp_path, capsys) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("hello")
    given = [a.format(tmp=tmp_path) for a in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "r")]
    assert run(*given) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.out == ""


def test_wrong_usage_exits_with_2(capsys) -> None:
    assert run("--max-tokens", "1") == 2
    assert run("--seed", "-1") == 2
    assert run("--nonsense") == 2
    assert run("--backend", "jax") == 2
    assert "'transformer_lens'" in capsys.readouterr().err


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed = -1"):
        prepare("group:D15", seed=-1)


def test_the_same_command_goes_on_after_an_interrupt_and_no_resume_begins_anew(
    tmp_path, monkeypatch, capsys
) -> None:
    first, second = Fake("first", 1, section), Fake("second", 2, interrupting)
    register(monkeypatch, first, second)
    same = ("group:D15", "--out", str(tmp_path), "--max-tokens", "90")
    assert run(*same) == 130
    assert "the same command goes on" in read(tmp_path / "report.json")["sections"][1]["reason"]
    second.body = section
    assert run(*same) == 0
    assert (first.n_runs, second.n_runs) == (1, 2)
    assert "first station: taken over from the earlier run" in capsys.readouterr().err
    assert run(*same, "--no-resume") == 0
    assert (first.n_runs, second.n_runs) == (2, 3)


def test_an_interrupt_that_loading_swallows_still_stops_the_job(tmp_path, monkeypatch, capsys) -> None:
    good = Fake("good", 1, section)
    register(monkeypatch, good)
    honest = interp.load

    def swallowing(*given: object, **options: object) -> object:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return honest(*given, **options)

    monkeypatch.setattr(interp, "load", swallowing)
    before = signal.getsignal(signal.SIGINT)
    assert run("group:D15", "--out", str(tmp_path), "--max-tokens", "90") == 130
    assert good.n_runs == 0
    assert "interrupted: what is on disk is whole" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(interp, "load", honest)
    assert (
        run("group:D15", "--out", str(tmp_path), "--max-tokens", "90") == 0
    )  # nothing is remembered for ever


def test_a_module_that_takes_no_tokens_needs_its_inputs_given(tmp_path) -> None:
    model = interp.load(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), prove=False)
    with pytest.raises((InputError, ModelError), match="give its inputs as tokens="):
        analyze(model, out=tmp_path)


def test_ctrl_c_in_a_real_process_leaves_a_report(tmp_path) -> None:
    """The whole way: signal, partial report, exit code 130, and nothing half-written."""
    code = (
        "import sys, os, signal\n"
        "from interp.study import stations\n"
        "from tests.interp.fake_stations import Fake, section\n"
        "stop = Fake('stop', 2, lambda study: os.kill(os.getpid(), signal.SIGINT) or __import__('time').sleep(30))\n"
        "stations.stations = lambda: (Fake('good', 1, section), stop)\n"
        "from interp.cli import main\n"
        f"sys.exit(main(['analyze', '--out', {str(tmp_path)!r}, '--max-tokens', '90']))\n"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    assert [s["status"] for s in read(tmp_path / "report.json")["sections"]] == ["done", "interrupted"]
    assert not list(tmp_path.rglob("*.tmp"))


# -- real models, where the optional data is present ------------------------------------------------


def test_texts_are_read_in_windows_and_nothing_is_dropped(shared, tmp_path) -> None:
    model = interp.load(str(shared / "models" / "stories260k"))
    texts = tmp_path / "texts.jsonl"
    story = "Once upon a time, there was a little girl named Lily. " * 10
    texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in [story, "A cat."]))
    found = gather(model, texts=texts, max_tokens=10_000, seq_len=64)
    n_tokens = int(model.tokens([story, "A cat."]).mask.sum())
    n_windows = len(found.tokens)
    assert int(found.tokens.mask.sum()) == n_tokens + n_windows - 2  # every window begins with BOS
    assert "1 of 2 documents are longer than 64 tokens" in found.notes[0]
    few = gather(model, texts=texts, max_tokens=40, seq_len=64)
    assert int(few.tokens.mask.sum()) == 40
    for empty in ([], [""], ["  "]):
        with pytest.raises(InputError):
            gather(model, texts=empty, max_tokens=10)


def test_a_language_model_reports_its_loss(shared, tmp_path, monkeypatch) -> None:
    register(monkeypatch)
    texts = shared / "corpora" / "tinystories.jsonl"
    done = analyze(str(shared / "models" / "stories260k"), texts=texts, out=tmp_path, max_tokens=10_000)
    facts = {label.partition(",")[0]: value for label, value in read(done.json)["facts"]}
    # 1.31 on these 27 stories, 1.42 on the first 60: measured on whole stories with the library's own forward pass
    assert float(facts["Next-token loss"].split()[0]) == pytest.approx(1.31, abs=0.02)
    assert facts["Tokens"] == 10_000
    assert len(read(done.json)["provenance"]["tokenizer_sha256"]) == 64
