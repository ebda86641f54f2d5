"""A store gives back the rows that went in, each once an epoch, and never passes damage off as rows."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from interp import ActivationStore, InputError, Site, SiteError, StoreError, open_store
from interp.runs.files import JsonLines, write_json_atomic
from interp.stores.manifest import read_config, sealed
from interp.stores.orders import shuffled_rows
from tests.interp.stores import SITES, bytes_of, id_texts, oracle_rows, tiny_harvest, tiny_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return tiny_harvest(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def truth() -> dict[str, torch.Tensor]:
    return oracle_rows(tiny_model(), id_texts(60))


@pytest.fixture
def copied(made: ActivationStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "store"))


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_it_says_what_it_holds(made: ActivationStore) -> None:
    assert made.sites == (Site.parse("table"), Site.parse("mix"))
    assert made.widths == {Site.parse("table"): 6, Site.parse("mix"): 10}
    assert made.n_rows == len(made) == sum(map(len, id_texts(60)))
    assert made.dtype == torch.float32
    assert len(made.shards) > 5
    assert made.path.name == made.config["hash"]
    assert made.provenance["model"]["weights_sha256"] == tiny_model().fingerprint()
    assert made.provenance["texts"]["documents"] == 60
    assert f"{made.n_rows} rows of table, mix in float32" in repr(made)


def test_rows_are_those_of_the_model(made: ActivationStore, truth: dict[str, torch.Tensor]) -> None:
    for site in SITES:
        # a matrix product over another number of rows may differ in the last bits
        torch.testing.assert_close(made.rows(site), truth[site], rtol=1e-6, atol=1e-6)
    for name in ("tokens", "doc", "pos"):
        assert torch.equal(getattr(made, name).long(), truth[name])


@pytest.mark.parametrize(
    "index",
    [
        slice(3, 150),
        slice(None, None, 7),
        [5, 5, 200, 0],
        torch.tensor([130, 2, -1]),
        slice(60, 60),
        [],
        slice(500, 2),
    ],
    ids=str,
)
def test_any_rows_are_those_of_the_whole(made: ActivationStore, index) -> None:
    whole = made.rows("mix")
    assert torch.equal(made.rows("mix", index), whole[torch.arange(made.n_rows)[index]])


@pytest.mark.parametrize("index", [[0, 10**6], [-(10**6)]], ids=str)
def test_a_row_that_is_not_there_is_an_input_error(made: ActivationStore, index: list[int]) -> None:
    with pytest.raises(InputError, match=rf"no row .*1000000: the store has {made.n_rows} rows"):
        made.rows("mix", index)


def test_rows_are_asked_for_by_whole_numbers(made: ActivationStore) -> None:
    with pytest.raises(InputError, match="whole numbers"):
        made.rows("mix", torch.tensor([[1]]))
    with pytest.raises(InputError, match="whole numbers"):
        made.rows("mix", torch.tensor([True]))


def test_a_site_that_was_not_harvested_is_an_error_with_the_nearest(made: ActivationStore) -> None:
    with pytest.raises(
        SiteError, match=r"'mixx' was not harvested; the store holds table, mix; did you mean 'mix'\?"
    ):
        made.rows("mixx")


def test_shards_are_ordinary_safetensors(made: ActivationStore) -> None:
    first = load_file(made.path / made.shards[0].name)
    assert set(first) == {"acts/table", "acts/mix", "tokens", "doc", "pos"}
    n = made.shards[0].rows
    assert torch.equal(first["acts/mix"], made.rows("mix", slice(0, n)))
    assert torch.equal(first["doc"], made.doc[:n])


def test_writing_into_rows_changes_nothing_on_the_disk(made: ActivationStore) -> None:
    before = bytes_of(made.path)
    made.rows("mix").zero_()
    made.rows("mix", slice(0, 5)).zero_()
    made.tokens.zero_()
    assert bytes_of(made.path) == before
    assert open_store(made.path).rows("mix").abs().sum() > 0
    del made.tokens


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_every_row_comes_once_an_epoch(made: ActivationStore, size: int, shuffle: bool) -> None:
    batches = list(made.batches(size, shuffle=shuffle, epochs=2))
    rows = torch.cat([batch.index for batch in batches])
    for epoch in rows.split(made.n_rows):
        assert torch.equal(epoch.sort().values, torch.arange(made.n_rows))
    for batch in batches[:3]:
        assert torch.equal(batch["mix"], made.rows("mix", batch.index))
        assert torch.equal(batch.tokens, made.tokens[batch.index])
        assert torch.equal(batch.doc, made.doc[batch.index])
    assert {len(batch) for batch in batches} <= {size, made.n_rows % size}
    if not shuffle:
        assert torch.equal(rows, torch.arange(made.n_rows).repeat(2))


def test_batches_depend_on_the_seed_alone_and_epochs_differ(made: ActivationStore) -> None:
    def order(seed: int, epochs: int = 1) -> torch.Tensor:
        return torch.cat([batch.index for batch in made.batches(32, sites="table", seed=seed, epochs=epochs)])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    first, second = order(1, epochs=2).split(made.n_rows)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_pass_goes_on_where_it_was_left(made: ActivationStore, drop_last: bool) -> None:
    whole = [b.index for b in made.batches(50, epochs=3, seed=4, drop_last=drop_last)]
    for start in (0, 1, 11, len(whole) - 1, len(whole)):
        rest = [b.index for b in made.batches(50, epochs=3, seed=4, drop_last=drop_last, start=start)]
        assert len(rest) == len(whole) - start
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_dropping_the_last_keeps_whole_batches_only(made: ActivationStore) -> None:
    batches = list(made.batches(50, epochs=2, drop_last=True))
    assert [len(b) for b in batches] == [50] * (2 * (made.n_rows // 50))


def test_batches_without_end_do_not_end(made: ActivationStore) -> None:
    stream = made.batches(made.n_rows, epochs=None, sites=["table"])
    for _ in range(4):
        assert len(next(stream)) == made.n_rows


@given(n_rows=st.integers(1, 3000), size=st.integers(1, 700), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_a_shuffled_epoch_is_a_permutation_cut_into_batches(n_rows: int, size: int, seed: int) -> None:
    parts = list(shuffled_rows(n_rows, size, seed, 0))
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(n_rows))
    assert all(len(part) == size for part in parts[:-1])


def test_shuffling_mixes_rows_from_the_whole_store() -> None:
    n_rows = 512 * 400
    first = next(shuffled_rows(n_rows, 4096, 0, 0))
    # 128 of 400 blocks are in the pool: a batch holds rows of most of them, and no block dominates
    blocks, counts = (first // 512).unique(return_counts=True)
    assert len(blocks) > 120
    assert counts.max() < 80
    assert abs(first.double().mean() / n_rows - 0.5) < 0.1
    assert not torch.equal(first, first.sort().values)


def test_reading_never_holds_more_than_the_batch_and_the_pool(tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")

    def own_kilobytes() -> int:  # without the pages of mapped files, which the system takes back as it likes
        return next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon")
        )

    texts = [[i % 29] * 16 for i in range(1000)]
    store = tiny_harvest(tmp_path, texts, model=tiny_model(d_hidden=512), shard_rows=2048, batch_size=128)
    size = sum(shard.n_bytes for shard in store.shards) // 1024
    assert size > 30_000
    before, most = own_kilobytes(), 0
    for batch in store.batches(100):
        assert len(batch) == 100
        most = max(most, own_kilobytes() - before)
    assert most < size / 4


def test_a_random_batch_is_drawn_by_its_generator(made: ActivationStore) -> None:
    one = made.random_batch(300, generator=torch.Generator().manual_seed(1))
    same = made.random_batch(300, generator=torch.Generator().manual_seed(1), sites="mix")
    other = made.random_batch(300, generator=torch.Generator().manual_seed(2))
    assert torch.equal(one.index, same.index)
    assert torch.equal(one["mix"], same["mix"])
    assert torch.equal(one["mix"], made.rows("mix", one.index))
    assert not torch.equal(one.index, other.index)
    with pytest.raises(SiteError, match="'table' was not harvested"):
        same["table"]


@pytest.mark.parametrize(
    "call", [lambda s: s.batches(0), lambda s: s.random_batch(0, generator=torch.Generator())]
)
def test_a_batch_has_at_least_one_row(made: ActivationStore, call) -> None:
    with pytest.raises(InputError, match="at least one row; got size 0"):
        call(made)


# -- opening ----------------------------------------------------------------------------------------


def test_it_opens_by_its_folder_and_by_the_one_above(made: ActivationStore) -> None:
    assert open_store(made.path).n_rows == open_store(made.path.parent).n_rows == made.n_rows
    assert open_store(str(made.path.parent)).path == made.path


def test_several_stores_are_listed(tmp_path: Path) -> None:
    one = tiny_harvest(tmp_path)
    two = tiny_harvest(tmp_path, dtype="float16")
    with pytest.raises(StoreError) as error:
        open_store(tmp_path)
    assert "holds 2 stores; open one of them" in str(error.value)
    assert f"{one.path} ({one.n_rows} rows of table, mix, float32)" in str(error.value)
    assert f"{two.path} ({two.n_rows} rows of table, mix, float16)" in str(error.value)


def test_a_folder_without_a_store_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing: it does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(StoreError, match="neither it nor a folder in it has a config.json"):
        open_store(tmp_path)
    write_json_atomic(tmp_path / "config.json", {"model_type": "gpt2"})
    with pytest.raises(StoreError, match=r"config.json is damaged: its contents do not match their check"):
        open_store(tmp_path)
    write_json_atomic(tmp_path / "config.json", sealed({"schema": "other/9"}))
    with pytest.raises(
        StoreError, match=r"has schema 'other/9'; this version reads 'interp.activation-store/1'"
    ):
        open_store(tmp_path)


def test_a_missing_shard_is_named(copied: Path) -> None:
    (copied / "000002.safetensors").unlink()
    with pytest.raises(StoreError, match="shard 000002.safetensors is missing from"):
        open_store(copied)


def test_a_torn_shard_is_named(copied: Path) -> None:
    shard = copied / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(
        StoreError, match=r"shard 000001.safetensors in .* is torn: \d+ bytes where \d+ were written"
    ):
        open_store(copied)


def test_a_flipped_bit_in_the_rows_is_found_by_verify_with_the_shards_name(copied: Path) -> None:
    flip(copied / "000003.safetensors", -5)
    flip(copied / "000001.safetensors", -500)
    store = open_store(copied)
    with pytest.raises(
        StoreError, match="2 of .* shards are corrupted .*: 000001.safetensors, 000003.safetensors"
    ):
        store.verify()


def test_a_sound_store_verifies(made: ActivationStore) -> None:
    assert made.verify() is made


def test_a_flipped_bit_in_a_header_is_found_when_it_is_read(copied: Path) -> None:
    flip(copied / "000000.safetensors", 40)
    with pytest.raises(StoreError, match="shard 000000.safetensors in .* is damaged: its header"):
        open_store(copied).rows("mix", [0])


def test_a_changed_manifest_or_configuration_is_found(copied: Path) -> None:
    manifest = (copied / "manifest.jsonl").read_text()
    (copied / "manifest.jsonl").write_text(manifest.replace('"doc":', '"doc":1', 1))
    with pytest.raises(StoreError, match=r"manifest.jsonl line 1 is damaged"):
        open_store(copied)
    (copied / "manifest.jsonl").write_text("".join(manifest.splitlines(keepends=True)[1:]))
    with pytest.raises(StoreError, match=r"line 1 is about '000001.safetensors', not 000000.safetensors"):
        open_store(copied)
    (copied / "manifest.jsonl").write_text(manifest)
    config = (copied / "config.json").read_text()
    (copied / "config.json").write_text(config.replace("float32", "float16"))
    with pytest.raises(StoreError, match=r"config.json is damaged"):
        open_store(copied)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "..", ""])
def test_a_name_in_a_manifest_never_becomes_a_path(copied: Path, name: str) -> None:
    lines = JsonLines(copied / "manifest.jsonl").read().records
    forged = sealed({**{k: v for k, v in lines[0].items() if k != "check"}, "shard": name})
    (copied / "manifest.jsonl").unlink()
    JsonLines(copied / "manifest.jsonl").append(forged)
    with pytest.raises(StoreError, match="line 1 is about"):
        open_store(copied)


def test_a_site_name_never_becomes_a_path(copied: Path) -> None:
    config = {k: v for k, v in read_config(copied).items() if k != "check"}
    config["sites"][0]["name"] = "../../outside"
    write_json_atomic(copied / "config.json", sealed(config))
    with pytest.raises(StoreError, match="its header is not the one written"):
        open_store(copied).rows("../../outside")
    assert not (copied.parents[1] / "outside").exists()


@st.composite
def mutations(draw):
    """A change to some file of a store."""
    kind = draw(
        st.sampled_from(["flip", "cut", "grow", "insert", "remove", "empty", "swap lines", "folder", "twice"])
    )
    return kind, draw(st.integers(0)), draw(st.integers(0)), draw(st.binary(min_size=1, max_size=8))


def mutate(folder: Path, kind: str, which: int, place: int, extra: bytes) -> None:
    files = sorted(folder.iterdir())
    # half of all changes go to the two files that speak, the other half to the shards
    file = (
        [folder / "config.json", folder / "manifest.jsonl"][which % 2]
        if which % 4 < 2
        else files[which // 4 % len(files)]
    )
    if not file.is_file():  # an earlier change has made a folder of it
        return
    data = file.read_bytes()
    at = place % max(len(data), 1)
    new = {
        "flip": data[:at] + bytes(b ^ (1 << place % 8) for b in data[at : at + 1]) + data[at + 1 :],
        "cut": data[:at],
        "grow": data + extra,
        "insert": data[:at] + extra + data[at:],
        "empty": b"",
        "swap lines": b"".join(sorted(data.splitlines(keepends=True))),
        "twice": data * 2,
    }.get(kind)
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif new is not None:
        file.write_bytes(new)


@given(changes=st.lists(mutations(), min_size=1, max_size=2))
@settings(max_examples=100, deadline=None)
def test_any_change_to_any_file_gives_rows_or_a_store_error(
    small_store: Path, tmp_path_factory, changes
) -> None:
    folder = Path(shutil.copytree(small_store, tmp_path_factory.mktemp("mutated") / "store"))
    for change in changes:
        if (folder / "config.json").is_file() and (folder / "manifest.jsonl").is_file():
            mutate(folder, *change)
    # Anything but a StoreError fails; a store that noticed nothing must give what was made.
    with suppress(StoreError):
        store = open_store(folder)
        rows = store.rows("mix")
        assert rows.shape == (store.n_rows, 10)
        assert len(store.doc) == store.n_rows
        assert sum(map(len, store.batches(100))) == store.n_rows
        assert store.provenance["store"]["n_rows"] == store.n_rows
        store.verify()
        assert torch.equal(rows, open_store(small_store).rows("mix", slice(0, store.n_rows)))
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_harvest(tmp_path_factory.mktemp("small"), id_texts(8)).path
