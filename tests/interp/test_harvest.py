"""A harvest that is killed anywhere and resumed gives the bytes of one that was not; nothing else is stored."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import interp
from interp import CheckError, InputError, SiteError, StoreError, Tokens, open_store
from interp.runs import files
from tests.interp.stores import SITES, Tiny, bytes_of, id_texts, oracle_rows, tiny_harvest, tiny_model


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process (warm: nothing is imported again); its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 warns of forks beside threads; this child is brief
        child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a child must never return into the test runner
        os._exit(1)


def finished(child: int) -> int:
    """The child's exit status; negative: the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_same_bytes(got: Path, wanted: Path) -> None:
    one, other = bytes_of(got), bytes_of(wanted)
    assert list(one) == list(other)
    assert [name for name in one if one[name] != other[name]] == []


def assert_same_rows(store: interp.ActivationStore, truth: dict[str, torch.Tensor]) -> None:
    for site in SITES:
        torch.testing.assert_close(store.rows(site), truth[site], rtol=1e-6, atol=1e-6)
    for name in ("tokens", "doc", "pos"):
        assert torch.equal(getattr(store, name).long(), truth[name])


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests fsync a thousand times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


# -- killed and resumed -----------------------------------------------------------------------------


def test_killed_at_twenty_random_points_it_resumes_to_the_same_bytes(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(45)
    tiny_harvest(quick / "whole", texts, model=model)
    started = time.monotonic()
    assert finished(in_child(lambda: tiny_harvest(quick / "timed", texts, model=model))) == 0
    duration = time.monotonic() - started
    chance = random.Random(0)
    killed, seen = 0, set()
    for trial in range(60):
        out = quick / f"trial{trial}"
        child = in_child(lambda out=out: tiny_harvest(out, texts, model=model))
        time.sleep(chance.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        killed += finished(child) == -signal.SIGKILL  # else it had ended before
        seen.add(len(list(out.rglob("*.safetensors"))))
        tiny_harvest(out, texts, model=model)
        assert_same_bytes(out, quick / "whole")
        shutil.rmtree(out)
        if killed == 20:
            break
    assert killed == 20
    assert len(seen) >= 3  # they were killed at different points


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(45, seed=3)
    tiny_harvest(quick / "whole", texts, model=model)
    chance = random.Random(1)
    for _ in range(25):
        child = in_child(lambda: tiny_harvest(quick / "killed", texts, model=model))
        time.sleep(chance.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        if finished(child) == 0:
            break
    tiny_harvest(quick / "killed", texts, model=model)
    assert_same_bytes(quick / "killed", quick / "whole")


@pytest.mark.parametrize("moment", ["half", "after"])
def test_killed_at_every_single_write_it_resumes_to_the_same_bytes(quick: Path, moment: str) -> None:
    model = tiny_model()
    texts = id_texts(14)
    tiny_harvest(quick / "whole", texts, model=model)

    def die_at(step: int, out: Path) -> None:
        steps = iter(range(10**6))

        def dying(call: Callable, *, half: Callable | None = None) -> Callable:
            def wrapped(*args, **options):
                now = next(steps) == step
                if now and moment == "half" and half is not None:
                    half(*args)
                if now and moment != "after":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **options)
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        write, replace = os.write, Path.replace
        os.fsync = dying(os.fsync)
        os.write = dying(write, half=lambda handle, data: write(handle, data[: len(data) // 2]))
        Path.replace = dying(replace)  # type: ignore[method-assign]
        tiny_harvest(out, texts, model=model)

    for step in range(1000):
        out = quick / f"step{step}"
        status = finished(in_child(lambda step=step, out=out: die_at(step, out)))
        tiny_harvest(out, texts, model=model)
        assert_same_bytes(out, quick / "whole")
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert step > 3 * len(open_store(quick / "whole").shards)


def test_the_first_interrupt_leaves_whole_shards_and_a_resumable_store(quick: Path) -> None:
    model = tiny_model()
    texts = id_texts(160)
    handler = signal.getsignal(signal.SIGINT)

    def interrupted() -> Iterator[list[int]]:
        for doc, text in enumerate(texts):
            if doc == 120:
                signal.raise_signal(signal.SIGINT)
            yield text

    whole = tiny_harvest(quick / "whole", texts, model=model)
    message = r"stopped with \d+ rows in .*; resume=True goes on from there"
    with pytest.raises(KeyboardInterrupt, match=message):
        tiny_harvest(quick / "cut", interrupted(), model=model)
    assert signal.getsignal(signal.SIGINT) is handler
    cut = open_store(quick / "cut").verify()
    assert 0 < cut.n_rows < whole.n_rows
    tiny_harvest(quick / "cut", texts, model=model)
    assert_same_bytes(quick / "cut", quick / "whole")


def test_a_forward_pass_that_draws_random_numbers_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(29, 4)
            self.mix = nn.Identity()

        def forward(self, ids):
            return self.mix(self.table(ids) + torch.randn(*ids.shape, 4))

    model = interp.load(Drawn().requires_grad_(False))
    before = torch.get_rng_state()
    tiny_harvest(tmp_path / "whole", id_texts(60), model=model)
    assert torch.equal(torch.get_rng_state(), before)
    tiny_harvest(tmp_path / "cut", id_texts(60), model=model, max_tokens=200)
    cut = open_store(tmp_path / "cut")
    assert cut.n_rows < open_store(tmp_path / "whole").n_rows
    n = sum(shard.rows for shard in cut.shards[:-1])
    assert n > 0
    whole = open_store(tmp_path / "whole").rows("mix", slice(0, n))
    assert torch.equal(cut.rows("mix", slice(0, n)), whole)
    tiny_harvest(tmp_path / "other", id_texts(60), model=model, seed=1)
    assert not torch.equal(open_store(tmp_path / "other").rows("mix", slice(0, n)), whole)


# -- what is stored ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("shard_rows", [16, 100, 10**5])
def test_rows_do_not_depend_on_where_shards_and_batches_end(
    quick: Path, batch_size: int, shard_rows: int
) -> None:
    texts = id_texts(16, longest=50)
    model = tiny_model()
    options = {"batch_size": batch_size, "shard_rows": shard_rows}
    store = tiny_harvest(quick / "one", texts, model=model, **options)
    assert_same_rows(store, oracle_rows(model, texts))
    assert max(shard.rows for shard in store.shards) <= shard_rows
    tiny_harvest(quick / "again", texts, model=model, **options)
    assert_same_bytes(quick / "again", quick / "one")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", torch.float16])
def test_rows_are_kept_in_the_type_asked_for(tmp_path: Path, dtype) -> None:
    model = tiny_model()
    store = tiny_harvest(tmp_path, id_texts(30), model=model, dtype=dtype)
    expected = getattr(torch, str(dtype).removeprefix("torch."))
    assert store.dtype == store.rows("mix").dtype == expected
    truth = oracle_rows(model, id_texts(30))["mix"]
    eps = torch.finfo(expected).eps
    torch.testing.assert_close(store.rows("mix").float(), truth, rtol=eps, atol=1e-6)


def test_texts_of_any_kind_give_the_same_store(tmp_path: Path) -> None:
    ids = id_texts(30)
    model = tiny_model()
    width = max(map(len, ids))
    some = [i for i in ids if i]
    kinds = {
        "lists": ids,
        "generator": (i for i in ids),
        "tensors": [torch.tensor(i, dtype=torch.int64) for i in ids],
        "int32 arrays": [np.array(i, dtype=np.int32) for i in ids],
        "data-set rows": [{"input_ids": i, "label": 0} for i in ids],
    }
    wanted = None
    for name, texts in kinds.items():
        store = tiny_harvest(tmp_path / name.replace(" ", "-"), texts, model=model, column="input_ids")
        wanted = wanted or store
        assert torch.equal(store.rows("mix"), wanted.rows("mix"))
        assert torch.equal(store.doc, wanted.doc)
        assert [s.sha256 for s in store.shards] == [s.sha256 for s in wanted.shards]
    tokens = Tokens.of(some)
    assert tokens.ids.shape == (len(some), width)
    assert torch.equal(tiny_harvest(tmp_path / "tokens", tokens, model=model).tokens, wanted.tokens)
    matrix = tiny_harvest(tmp_path / "matrix", torch.arange(24).view(4, 6), model=model)
    assert torch.equal(matrix.tokens.view(4, 6), torch.arange(24, dtype=torch.int32).view(4, 6))


def test_a_data_set_is_streamed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    ids = id_texts(30)
    read = []

    def rows():
        for number, i in enumerate(ids):
            read.append(number)
            yield {"input_ids": i}

    stream = datasets.IterableDataset.from_generator(rows)
    store = tiny_harvest(tmp_path / "stream", stream, column="input_ids")
    table = datasets.Dataset.from_dict({"input_ids": ids})
    assert torch.equal(
        tiny_harvest(tmp_path / "table", table, column="input_ids").rows("mix"), store.rows("mix")
    )
    read.clear()
    endless = ({"input_ids": [1, 2, 3]} for _ in iter(int, 1))
    assert tiny_harvest(tmp_path / "endless", endless, column="input_ids", max_tokens=100).n_rows == 102


def test_sites_without_positions_give_a_row_an_input(tmp_path: Path) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(29, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, ids):
            return self.head(self.table(ids).mean(1))

    model = interp.load(Pooled())
    pairs = [[i, (i * 7) % 29] for i in range(29)]
    store = interp.harvest(model, pairs, "head", tmp_path, context=2, shard_rows=10, batch_size=4)
    assert store.n_rows == 29
    torch.testing.assert_close(store.rows("head"), model.capture(torch.tensor(pairs), "head")["head"])
    assert store.tokens.tolist() == [b for _, b in pairs]
    assert store.doc.tolist() == list(range(29))
    with pytest.raises(SiteError, match="rows of different kinds"):
        interp.harvest(model, pairs, ["table", "head"], tmp_path, context=2)


def test_empty_texts_count_but_give_no_rows(tmp_path: Path) -> None:
    store = tiny_harvest(tmp_path, [[], [1, 2], [], [3], []], log=tmp_path / "log.jsonl")
    assert store.doc.tolist() == [1, 1, 3]
    assert store.shards[-1].doc == 5
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["harvest", "shard", "harvested"]
    assert events[-1]["empty_documents"] == 3
    assert events[-1]["rows"] == 3


# -- going on ---------------------------------------------------------------------------------------


def test_more_texts_are_added_behind_the_old_ones(tmp_path: Path) -> None:
    texts = id_texts(80)
    model = tiny_model()
    first = tiny_harvest(tmp_path, texts[:30], model=model)
    before = bytes_of(first.path)
    both = tiny_harvest(tmp_path, texts, model=model)
    assert both.path == first.path
    assert_same_rows(both, oracle_rows(model, texts))
    assert all(bytes_of(both.path)[name] == data for name, data in before.items() if name != "manifest.jsonl")
    assert bytes_of(both.path)["manifest.jsonl"].startswith(before["manifest.jsonl"])


def test_a_larger_limit_goes_on_in_the_middle_of_a_long_text(tmp_path: Path) -> None:
    texts = [*id_texts(5), torch.arange(500).remainder(29).tolist(), *id_texts(5, seed=1)]
    model = tiny_model()
    for limit in (100, 101, 260, 261):
        store = tiny_harvest(tmp_path, texts, model=model, max_tokens=limit)
        assert limit <= store.n_rows < limit + 16
    assert_same_rows(tiny_harvest(tmp_path, texts, model=model), oracle_rows(model, texts))


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    for limit in (None, 100):
        store = tiny_harvest(tmp_path / str(limit), max_tokens=limit)
        before = bytes_of(store.path)
        assert tiny_harvest(tmp_path / str(limit), max_tokens=limit).n_rows == store.n_rows
        assert bytes_of(store.path) == before


def test_without_resume_a_store_with_rows_is_refused(tmp_path: Path) -> None:
    store = tiny_harvest(tmp_path, resume=False)
    with pytest.raises(StoreError, match=rf"already holds {store.n_rows} rows; resume=True goes on"):
        tiny_harvest(tmp_path, resume=False)


def test_other_texts_are_refused_by_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    model = with_tokenizer()
    for path, words in ((first, "a b c d e f"), (second, "a b c x e f")):
        path.write_text("\n".join(json.dumps({"text": word}) for word in words.split()))
    tiny_harvest(tmp_path / "acts", first, model=model)
    with pytest.raises(
        StoreError, match=r"texts of second.jsonl are not those of first.jsonl harvested into .*: they differ"
    ):
        tiny_harvest(tmp_path / "acts", second, model=model)
    second.write_text("".join(first.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(
        StoreError, match=r"second.jsonl ends after 2 documents, but .* already holds 6 of first.jsonl"
    ):
        tiny_harvest(tmp_path / "acts", second, model=model)
    second.write_text(first.read_text() + '\n{"text": "g"}')
    assert (
        tiny_harvest(tmp_path / "acts", second, model=model).provenance["texts"]["source"] == "second.jsonl"
    )


def test_fewer_texts_are_refused(tmp_path: Path) -> None:
    tiny_harvest(tmp_path, id_texts(60))
    message = r"an iterable ends after 20 documents, but .* already holds \d+ of an iterable"
    with pytest.raises(StoreError, match=message):
        tiny_harvest(tmp_path, id_texts(60)[:20])


@pytest.mark.parametrize(
    "change",
    [{"dtype": "float16"}, {"context": 8}, {"batch_size": 5}, {"shard_rows": 65}, {"seed": 1}],
    ids=str,
)
def test_other_settings_make_another_store(tmp_path: Path, change: dict) -> None:
    model = tiny_model()
    assert tiny_harvest(tmp_path, model=model).path != tiny_harvest(tmp_path, model=model, **change).path


def test_another_models_rows_never_mix_in(tmp_path: Path) -> None:
    assert (
        tiny_harvest(tmp_path, model=tiny_model(0)).path != tiny_harvest(tmp_path, model=tiny_model(1)).path
    )


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    manifest = tiny_harvest(tmp_path).path / "manifest.jsonl"
    message = "manifest.jsonl is in use by another process"
    with files.locked(manifest), pytest.raises(StoreError, match=message):
        tiny_harvest(tmp_path)


def test_a_damaged_store_is_not_added_to(tmp_path: Path) -> None:
    store = tiny_harvest(tmp_path)
    (store.path / "000001.safetensors").unlink()
    with pytest.raises(StoreError, match="shard 000001.safetensors is missing"):
        tiny_harvest(tmp_path, id_texts(100))


# -- several processes ------------------------------------------------------------------------------


def row_set(store: interp.ActivationStore) -> list[tuple]:
    columns = [store.doc, store.pos, store.tokens, *(store.rows(site) for site in SITES)]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def distributed(rank: int, out: Path, texts: list, meet: Path, model) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    tiny_harvest(out, texts, model=model, batch_size=1)
    torch.distributed.barrier()
    both = open_store(out)
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    torch.distributed.all_gather(counts, torch.tensor([both.n_rows]))
    assert counts[0] == counts[1]
    torch.distributed.destroy_process_group()


def test_two_gloo_processes_give_the_rows_of_one(tmp_path: Path) -> None:
    texts, model = id_texts(70, longest=40), tiny_model()
    children = [
        in_child(lambda rank=rank: distributed(rank, tmp_path / "two", texts, tmp_path / "meet", model))
        for rank in range(2)
    ]
    assert [finished(child) for child in children] == [0, 0]
    both = open_store(tmp_path / "two").verify()
    # one text a pass, so that no product is over another number of rows than alone
    assert row_set(both) == row_set(tiny_harvest(tmp_path / "one", texts, model=model, batch_size=1))
    assert both.world_size == 2
    assert both.missing_ranks == ()
    assert {p.name for p in both.path.iterdir() if p.suffix != ".safetensors"} == {
        "config.json",
        "manifest.00000-of-00002.jsonl",
        "manifest.00001-of-00002.jsonl",
    }


def test_a_killed_part_resumes_to_the_same_bytes_beside_the_other(quick: Path) -> None:
    texts, model = id_texts(120), tiny_model()
    for rank in range(2):
        tiny_harvest(quick / "whole", texts, model=model, part=(rank, 2))
    chance = random.Random(2)
    for _ in range(3):
        children = [
            in_child(lambda rank=rank: tiny_harvest(quick / "cut", texts, model=model, part=(rank, 2)))
            for rank in range(2)
        ]
        time.sleep(chance.uniform(0, 0.15))
        os.kill(children[1], signal.SIGKILL)
        assert finished(children[0]) == 0
        finished(children[1])
    tiny_harvest(quick / "cut", texts, model=model, part=(1, 2))
    assert_same_bytes(quick / "cut", quick / "whole")


def test_parts_made_apart_become_one_store_by_copying(tmp_path: Path) -> None:
    texts, model = id_texts(50), tiny_model()
    together = tmp_path / "together"
    for rank in range(3):
        part = tiny_harvest(tmp_path / f"machine{rank}", texts, model=model, part=(rank, 3))
        with pytest.raises(
            StoreError, match=r"lacks the part of rank .* of 3: manifest.0000\d-of-00003.jsonl is missing"
        ):
            open_store(part.path)
        assert open_store(part.path, partial=True).missing_ranks == tuple(r for r in range(3) if r != rank)
        shutil.copytree(tmp_path / f"machine{rank}", together, dirs_exist_ok=True)
    store = open_store(together).verify()
    order = store.doc.argsort(stable=True)
    truth = oracle_rows(model, texts)
    assert torch.equal(store.tokens[order].long(), truth["tokens"])
    torch.testing.assert_close(store.rows("mix", order), truth["mix"], rtol=1e-6, atol=1e-6)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    tiny_harvest(tmp_path, part=(0, 2))
    with pytest.raises(StoreError, match="was harvested by 2 processes; go on with as many, not 1"):
        tiny_harvest(tmp_path, part=(0, 1))
    with pytest.raises(InputError, match=r"0 <= rank < world_size; got \(2, 2\)"):
        tiny_harvest(tmp_path, part=(2, 2))


@pytest.mark.slow
def test_torchrun_needs_nothing_but_the_same_call(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from tests.interp.stores import id_texts, tiny_harvest\n"
        "torch.distributed.init_process_group('gloo')\n"
        "tiny_harvest(sys.argv[1], id_texts(70), batch_size=1)\n"
        "torch.distributed.barrier()\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        str(tmp_path / "two"),
    ]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert row_set(open_store(tmp_path / "two")) == row_set(
        tiny_harvest(tmp_path / "one", id_texts(70), batch_size=1)
    )


# -- what is refused --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_keeps_what_is_whole_and_goes_on_when_there_is_space(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    texts, model = id_texts(90), tiny_model()
    tiny_harvest(tmp_path / "whole", texts, model=model)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(110_000))
    with monkeypatch.context() as patch:
        if not foreseen:
            patch.setattr("interp.stores.filling.require_space", lambda *args, **options: None)
        message = (
            "not enough disk space at .*: shard .* needs"
            if foreseen
            else "disk full while writing .*safetensors"
        )
        with pytest.raises(StoreError, match=message):
            tiny_harvest(small_disk / "acts", texts, model=model)
    kept = open_store(small_disk / "acts").verify()
    assert 0 < kept.n_rows < open_store(tmp_path / "whole").n_rows
    assert not list(kept.path.glob(".*"))
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    tiny_harvest(small_disk / "acts", texts, model=model)
    assert_same_bytes(small_disk / "acts", tmp_path / "whole")


def test_a_limit_that_cannot_fit_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError,
        match=r"not enough disk space at .*: storing up to 1000000000000000 rows needs .* are free",
    ):
        tiny_harvest(tmp_path, max_tokens=10**15)


def test_a_disk_that_fills_up_is_told_without_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, model = id_texts(60), tiny_model()
    tiny_harvest(tmp_path / "whole", texts, model=model)
    sync, left = os.fsync, [12]

    def filling_up(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling_up)
        with pytest.raises(StoreError, match="disk full while writing"):
            tiny_harvest(tmp_path / "acts", texts, model=model)
    assert open_store(tmp_path / "acts").verify().n_rows > 0
    tiny_harvest(tmp_path / "acts", texts, model=model)
    assert_same_bytes(tmp_path / "acts", tmp_path / "whole")


def test_an_out_folder_that_cannot_be_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make folder .*: Not a directory"):
        tiny_harvest(tmp_path / "file" / "acts")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there are no tokens in the texts .an iterable.: every one is empty"),
        ([[], []], "there are no tokens in the texts"),
        (
            [[1, 2], [0.5, 1.0]],
            r"document 1: a list is neither text nor token ids, whole numbers \[pos\]; got float64 \[2\]",
        ),
        ([[1, 2], [[1, 2]]], r"document 1: a list is neither text nor token ids"),
        ([None], "document 0: a NoneType is neither text nor token ids"),
        ([[1, -2]], r"document 0: token id -2 is outside the vocabulary"),
        (["words"], "without a tokenizer"),
        ([{"txet": "a"}], r"document 0: no column 'text' among \['txet'\]; did you mean 'txet'\?"),
        ("no/such/file.jsonl", "no text file 'no/such/file.jsonl'"),
        (b"bytes", "got bytes"),
        (3, "got int"),
    ],
    ids=str,
)
def test_texts_that_cannot_be_used_are_told(tmp_path: Path, texts, message: str) -> None:
    with pytest.raises(interp.InterpError, match=message):
        tiny_harvest(tmp_path, texts)


def test_no_folder_is_made_for_texts_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        tiny_harvest(tmp_path / "acts", [])
    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "a store holds float32, float16, bfloat16; it was asked for int8"),
        ({"context": 1}, "context must be at least 2"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"shard_rows": 15}, "shard_rows must hold a window: at least context=16; got 15"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"include_bos": False}, "include_bos=False needs a tokenizer"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_told(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_harvest(tmp_path, **options)


def test_an_unknown_site_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="no site 'mixx'; did you mean 'mix'"):
        interp.harvest(tiny_model(), id_texts(3), "mixx", tmp_path)


def test_rows_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    class Dividing(nn.Module):
        def __init__(self, big: float) -> None:
            super().__init__()
            self.table = nn.Embedding(29, 4)
            self.mix = nn.Identity()
            self.big = big

        def forward(self, ids):
            return self.mix(torch.where(ids[..., None] == 7, self.big, self.table(ids)))

    texts = [[1, 2], [3, 7, 4]]
    with pytest.raises(CheckError, match=r"mix is not finite at document 1, position 1 \(1 of 5 rows\)$"):
        interp.harvest(interp.load(Dividing(float("inf"))), texts, "mix", tmp_path)
    with pytest.raises(CheckError, match="float16 ends at 65504: store bfloat16 or float32"):
        interp.harvest(interp.load(Dividing(1e6)), texts, "mix", tmp_path, dtype="float16")
    assert interp.harvest(interp.load(Dividing(1e38)), texts, "mix", tmp_path, dtype="bfloat16").n_rows == 5


# -- real models ------------------------------------------------------------------------------------


class Words:
    """As much of a tokenizer as the toolkit asks of one: words to ids by their first letter."""

    bos_token_id, eos_token_id, pad_token_id = 28, 27, 0

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(word[0]) % 27 for word in text.split()] for text in texts]}

    def get_vocab(self) -> dict[str, int]:
        return {chr(97 + i): i for i in range(27)}


def with_tokenizer():
    return interp.load(Tiny(), tokenizer=Words())


def test_the_beginning_of_a_sequence_is_kept_or_left_out(tmp_path: Path) -> None:
    model = with_tokenizer()
    texts = ["a b c", "d", "", " ".join("abcdefghij" * 3)]
    kept = tiny_harvest(tmp_path / "kept", texts, model=model)
    left = tiny_harvest(tmp_path / "left", texts, model=model, include_bos=False)
    begins = kept.tokens == 28
    # a window of 16 tokens of the long text holds the sequence's beginning and 15 of its words
    assert kept.doc[begins].tolist() == [0, 1, 3] + [3] * (-(-len(texts[3].split()) // 15) - 1)
    assert torch.equal(left.tokens, kept.tokens[~begins])
    assert torch.equal(left.pos, kept.pos[~begins])
    assert torch.equal(left.rows("mix"), kept.rows("mix")[~begins])
    assert left.pos.min() == 1
    assert left.path.name != kept.path.name


def test_real_stories_through_a_real_model(tmp_path: Path, shared: Path) -> None:
    model = interp.load(shared / "models" / "stories260k")
    file = shared / "corpora" / "tinystories.jsonl"
    sites = ["blocks.*.hook_resid_post", "blocks.1.attn.hook_z"]
    stories = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()[:6]]
    store = interp.harvest(
        model, file, sites, tmp_path, context=128, shard_rows=512, batch_size=4, max_tokens=1100
    )
    assert store.shapes[interp.Site.parse("blocks.1.attn.hook_z")] == (8, 8)
    for doc in range(3):
        here = (store.doc == doc).nonzero().flatten()
        ids = model.tokens(stories[doc], truncate=True).ids[0]
        first = here[: min(128, len(ids))]
        assert store.tokens[first].tolist() == ids[: len(first)].tolist()
        alone = model.capture(ids[None, : len(first)], sites)
        for site in store.sites:
            # a row among others padded to its batch differs from the row alone by rounding
            torch.testing.assert_close(store.rows(site, first), alone[site][0], rtol=1e-4, atol=1e-4)
    with pytest.raises(SiteError, match=r"blocks.0.attn.hook_pattern has axes .*: it has no row per token"):
        interp.harvest(model, file, "blocks.0.attn.hook_pattern", tmp_path)
    with pytest.raises(InputError, match="document 1: token id 512 is outside the vocabulary"):
        interp.harvest(model, [[1, 2], [3, 512]], sites, tmp_path / "other")
    again = interp.harvest(
        model, file, sites, tmp_path / "again", context=128, shard_rows=512, batch_size=4, max_tokens=600
    )
    again = interp.harvest(
        model, file, sites, again.path.parent, context=128, shard_rows=512, batch_size=4, max_tokens=1100
    )
    assert torch.equal(again.tokens, store.tokens)
