"""What a harvest stores, how it goes on, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import interp
from interp import InputError, SiteError, StoreError, Tokens
from interp.runs import files
from tests.interp.stores import (
    Tiny,
    assert_same_bytes,
    assert_same_rows,
    bytes_of,
    id_texts,
    oracle_rows,
    tiny_harvest,
    tiny_model,
)

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
    with pytest.raises(StoreError, match=rf"already holds {store.n_rows} rows, and resuming is switched off"):
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


@pytest.mark.parametrize("part", [(0, 1), (0, 2)])
def test_a_shard_with_a_flipped_bit_is_not_added_to(tmp_path: Path, part: tuple[int, int]) -> None:
    store = tiny_harvest(tmp_path, part=part)
    shard = store.path / store.shards[1].name
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    before = bytes_of(store.path)
    with pytest.raises(StoreError, match=rf"1 of {len(store.shards)} shards are corrupted .*: {shard.name}$"):
        tiny_harvest(tmp_path, [*id_texts(60), *id_texts(20, seed=1)], part=part)
    assert bytes_of(store.path) == before


# -- real models ------------------------------------------------------------------------------------


class Words:
    """As much of a tokenizer as the toolkit asks of one: words to ids by their first letter."""

    bos_token_id, eos_token_id, pad_token_id = 28, 27, 0

    def __call__(
        self, texts: list[str], add_special_tokens: bool = True, **options: object
    ) -> dict[str, list[list[int]]]:
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
