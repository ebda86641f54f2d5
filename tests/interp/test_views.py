"""Views: exact values under any tokens, shapes that do not fit refused by name, one page without a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.errors import InputError
from interp.pages.packing import unpacked
from interp.views import attention_patterns, colored_tokens
from tests.hostile import HOSTILE, alive, nodes_of_html
from tests.models import loaded

PATTERNS = "blocks.*.attn.hook_pattern"
WORDS = ["a", " b", " c"]


def triangle(n_heads: int = 2, n: int = 3, seed: int = 0) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(size=(n_heads, n, n)) + np.triu(np.full((n, n), -np.inf), 1)
    held = np.exp(scores)
    return (held / held.sum(-1, keepdims=True)).astype(np.float32)


def block(page: str) -> tuple[dict[str, np.ndarray], dict]:
    return unpacked(page.split('id="data">')[1].split("</script>")[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_captured_batch_is_shown_exactly_and_without_padding(side: str) -> None:
    model = loaded("gpt2", "transformers")
    tokens = interp.Tokens.of([[3, 4, 5, 6], [7, 8]], side=side, show=lambda i: f" w{i}")
    acts = model.capture(tokens, [PATTERNS, "blocks.*.hook_resid_post"])
    view = attention_patterns(acts, tokens)
    assert view.prompts == ((" w3", " w4", " w5", " w6"), (" w7", " w8"))
    assert view.layers == tuple(str(i) for i in range(model.n_layers or 0))
    assert view.causal
    table = view.to_frame()
    assert len(table) == model.n_layers * model.n_heads * (10 + 3)
    sums = table.groupby(["prompt", "layer", "head", "query"])["value"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)  # padding took no attention, so nothing is missing
    alone = model.capture(tokens.ids[1:, tokens.mask[1]], PATTERNS)
    row = table[(table.prompt == 1) & (table.layer == "1") & (table["head"] == 0) & (table["query"] == 1)]
    np.testing.assert_allclose(row["value"], alone["blocks.1.attn.hook_pattern"][0, 0, 1], atol=1e-6)
    assert row["key_token"].tolist() == [" w7", " w8"]


def test_the_page_holds_the_values_to_the_last_bit() -> None:
    patterns = triangle()
    columns, extra = block(attention_patterns(patterns, WORDS).page())
    np.testing.assert_array_equal(columns["p0l0"].reshape(2, 3, 3), patterns)
    assert extra == {"prompts": [WORDS], "layers": [""], "heads": [2], "causal": True, "spaced": True}
    values = torch.tensor([0.1, float("nan"), -3.0])
    columns, extra = block(colored_tokens(WORDS, {"x": values, "y": [1, 2, 3]}).page())
    np.testing.assert_array_equal(columns["p0"], np.array([[0.1, np.nan, -3.0], [1, 2, 3]], np.float32))
    assert extra["names"] == ["x", "y"]


def test_arrays_of_every_shape_are_taken() -> None:
    one = triangle(1)
    for patterns in (one[0], one, one[None], torch.from_numpy(one), {"layer 7": one}):
        np.testing.assert_array_equal(attention_patterns(patterns, WORDS).patterns[0][0], one)
    both = attention_patterns(np.stack([one, one]), [WORDS, WORDS])
    assert len(both.prompts) == 2
    assert not attention_patterns(np.full((3, 3), 1 / 3), WORDS).causal
    table = colored_tokens([["a"], ["b", "c"]], [[1.0], [2.0, 3.0]]).to_frame().drop(columns="name")
    assert table.to_numpy().tolist() == [[0, 0, "a", 1], [1, 0, "b", 2], [1, 1, "c", 3]]
    named = colored_tokens(WORDS, np.arange(6.0).reshape(1, 3, 2), names=["one", "two"])
    assert named.to_frame().query("name == 'two'")["value"].tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: attention_patterns(triangle(), ["a"]), "3 positions; prompt 0 has 1 tokens"),
        (
            lambda: attention_patterns(triangle()[:, :2], WORDS),
            r"shape \[1, 2, 2, 3\]; expected \[batch, head, query",
        ),
        (lambda: attention_patterns({}, WORDS), "no attention pattern among nothing"),
        (
            lambda: attention_patterns(np.full((3, 3), 0.3), WORDS, causal=True),
            "a query looks at a later key",
        ),
        (lambda: attention_patterns(triangle(), "abc"), "tokens are Tokens"),
        (lambda: attention_patterns("abc", WORDS), "patterns must be an array of numbers; got str"),
        (lambda: colored_tokens(WORDS, [1.0, 2.0]), "'value' has 2 values for prompt 0, which has 3 tokens"),
        (lambda: colored_tokens(WORDS, {}), "there are no values"),
        (lambda: colored_tokens(WORDS, [1.0, 2, 3], limit=0), "above 0; got 0"),
        (
            lambda: colored_tokens(WORDS, np.ones((3, 2)), names=["a"]),
            r"last axis of that size; got \[3, 2\]",
        ),
        (lambda: colored_tokens(WORDS, {"a": [1.0, 2, 3]}, names=["a"]), "has its names already"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def hostile_views() -> list:
    words = list(HOSTILE)
    return [
        attention_patterns({HOSTILE[0]: triangle(2, len(words))}, words, title=HOSTILE[3]),
        colored_tokens(
            words, {HOSTILE[0]: np.arange(len(words)), HOSTILE[20]: np.ones(len(words))}, title=HOSTILE[3]
        ),
    ]


def test_hostile_tokens_stay_data_in_page_frame_and_table(tmp_path: Path) -> None:
    for view in hostile_views():
        page = view.page()
        assert set(alive(page, scripts=2)) <= {"style", "link"}
        policy = next(held["content"] or "" for tag, held in nodes_of_html(page)[0] if "http-equiv" in held)
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert "http" not in page.split("</head>")[0].replace("http-equiv", "")
        tags, _ = nodes_of_html(view._repr_html_())
        assert [tag for tag, _ in tags] == ["iframe"]
        assert tags[0][1]["sandbox"] == "allow-scripts"
        assert tags[0][1]["srcdoc"] == page.encode("utf-8", "replace").decode()
        assert view.save(tmp_path / "deep" / "v.html").read_bytes() == page.encode("utf-8", "replace")
        assert len(repr(view)) < 200
        held = view.to_frame()
        assert HOSTILE[0] in set(held.get("token", held.get("query_token")))
