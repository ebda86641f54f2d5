"""Several processes harvest their parts of the texts, and the parts are one store."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import interp
from interp import InputError, StoreError, open_store
from tests.interp.stores import (
    SITES,
    assert_same_bytes,
    finished,
    id_texts,
    in_child,
    oracle_rows,
    tiny_harvest,
    tiny_model,
)


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
