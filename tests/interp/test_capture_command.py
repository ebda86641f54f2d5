"""`interp capture` from the command line: what it stores, what it says it will cost, what it refuses, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
from interp import cli

WORDS = ["<s>", "<unk>", "a", "cat", "dog", "sat", "saw", "the", "on", "mat", "and", "ran"]
SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer GPT-2 and its tokenizer, saved as anyone would save them."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("model")
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(out)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>").save_pretrained(out)
    return out


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    stories = ["the cat sat on the mat", "a dog saw the cat and ran", "the dog", "a cat saw a dog " * 9]
    file.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    return file


def arguments(folder: Path, texts: Path, out: Path, *more: str) -> list[str]:
    return [
        "capture",
        str(folder),
        "--texts",
        str(texts),
        "--sites",
        "blocks.*.hook_resid_post",
        "--out",
        str(out),
        *more,
    ]


def test_the_store_holds_what_the_model_computes(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, tmp_path / "acts")) == 0
    told = capsys.readouterr()
    store = interp.open_store(told.out.strip())
    model = interp.load(str(folder))
    tokens = model.tokens(["the cat sat on the mat"])
    expected = model.capture(tokens, SITE)[SITE][0]
    # Only the padding of the batch differs between the two passes: rounding in the last bits.
    torch.testing.assert_close(store.rows(SITE, slice(0, len(expected))), expected, atol=1e-5, rtol=1e-5)
    assert [str(site) for site in store.sites] == ["blocks.0.hook_resid_post", SITE]
    events = [
        json.loads(line)["event"] for line in (tmp_path / "acts" / "capture.jsonl").read_text().splitlines()
    ]
    assert (events[0], events[-1]) == ("harvest", "harvested")


def test_json_is_the_only_thing_on_standard_output(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, tmp_path / "acts", "--json", "--dtype", "bfloat16")) == 0
    told = json.loads(capsys.readouterr().out)
    store = interp.open_store(told["store"])
    assert told["rows"] == store.n_rows
    assert told["widths"] == {"blocks.0.hook_resid_post": 16, SITE: 16}
    assert store.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "more", [(), ("--dtype", "float16"), ("--no-bos",), ("--max-tokens", "20"), ("--context", "8")]
)
def test_the_estimate_is_what_the_run_then_needs(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    out = tmp_path / "acts"
    assert cli.main(arguments(folder, texts, out, "--dry-run", "--json", *more)) == 0
    cost = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert cli.main(arguments(folder, texts, out, *more)) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == cost["store"]
    assert cost["rows"] == interp.open_store(path).n_rows
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    headers = 2048 * len(list(path.glob("*.safetensors")))
    assert cost["disk_bytes"] <= stored <= cost["disk_bytes"] + headers
    assert cost["forward_passes"] >= 1
    assert cost["seconds"] > 0


def test_the_estimate_for_people_names_every_cost(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, tmp_path, "--dry-run")) == 0
    heads = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert heads == ["sites", "passes", "rows", "time", "memory", "disk"]


def test_a_second_run_goes_on_or_refuses_as_asked(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = arguments(folder, texts, tmp_path / "acts")
    assert cli.main(call) == 0
    path = Path(capsys.readouterr().out.strip())
    before = {file.name: file.read_bytes() for file in path.glob("*.safetensors")}
    assert cli.main(call) == 0
    assert {file.name: file.read_bytes() for file in path.glob("*.safetensors")} == before
    assert cli.main([*call, "--no-resume"]) == 1
    told = capsys.readouterr().err
    assert "error: " in told
    assert "rows, and resuming is switched off" in told
    assert "resume=" not in told


def test_a_flipped_bit_is_refused_by_the_next_run(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = arguments(folder, texts, tmp_path / "acts")
    assert cli.main([*call, "--max-tokens", "10"]) == 0
    (shard,) = Path(capsys.readouterr().out.strip()).glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert cli.main(call) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert shard.name in told.err
    assert list(shard.parent.glob("*.safetensors")) == [shard]


def test_the_last_window_is_finished_and_the_rows_are_told(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, tmp_path / "acts", "--max-tokens", "8")) == 0
    told = capsys.readouterr()
    store = interp.open_store(told.out.strip())
    assert store.n_rows > 8
    assert f"the store holds {store.n_rows} rows" in told.err
    assert cli.main(["capture", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at least this many rows: the last window is finished" in said


def test_a_refusal_for_lack_of_space_leaves_nothing(
    folder: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, tmp_path / "acts", "--max-tokens", str(10**15))) == 1
    assert "error: not enough disk space" in capsys.readouterr().err
    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"texts": "absent.jsonl"}, 1, "error: no text file"),
        ({"model": "absent-folder/"}, 1, "error: "),
        ({"--sites": "blocks.9.hook_resid_post"}, 1, "layer"),
        ({"--sites": "blocks.1.hook_resid_pots"}, 1, "did you mean"),
        ({"--dtype": "float64"}, 1, "error: a store holds float32, float16, bfloat16"),
        ({"--context": "4096"}, 1, "error: context must be at least 2 and at most the model's 32"),
        ({"--column": "story"}, 1, "no field 'story' among ['text']"),
        ({"--batch-size": "0"}, 2, "--batch-size"),
        ({"--backend": "transformer"}, 2, "--backend"),
        ({"--device": "tpu7"}, 1, "error: "),
    ],
)
def test_bad_input_is_refused_with_its_reason_and_code(
    folder: Path,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    code: int,
    message: str,
) -> None:
    given = {"--texts": str(change.get("texts", texts)), "--sites": SITE, "--out": str(tmp_path / "acts")}
    given |= {name: value for name, value in change.items() if name.startswith("--")}
    options = [word for pair in given.items() for word in pair]
    assert cli.main(["capture", change.get("model", str(folder)), *options]) == code
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert "Traceback" not in told.err


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc").is_dir(), reason="needs a place where nobody can write"
)
def test_a_folder_that_cannot_be_written_is_refused(
    folder: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, texts, Path("/proc/acts"))) == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert "/proc/acts" in told.err


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n\n".join(f"the cat saw {'a dog and ' * (i % 7)} ran" for i in range(3000)))
    more = ("--batch-size", "1", "--shard-rows", "500")
    whole, cut = (
        [sys.executable, "-m", "interp", *arguments(folder, corpus, tmp_path / name, *more)]
        for name in ("whole", "cut")
    )
    process = subprocess.Popen([*cut], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut").glob("*/000003.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: " in said
    assert "Traceback" not in said
    (store,) = (path for path in (tmp_path / "cut").iterdir() if path.is_dir())
    assert interp.open_store(store).n_rows >= 3 * 400
    for command in (cut, whole):
        assert subprocess.run(command, capture_output=True).returncode == 0
    files = {file.name for file in (tmp_path / "whole" / store.name).glob("*")}
    assert {file.name for file in store.glob("*")} == files
    for name in files - {"config.json"}:
        assert (store / name).read_bytes() == (tmp_path / "whole" / store.name / name).read_bytes(), name
