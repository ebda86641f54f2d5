"""Site names parse, print, sort and glob; wrong ones say what is near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.sites import KINDS, Site, SiteTable

LAYERED = [kind for kind, (template, _) in KINDS.items() if "{l}" in template]


@st.composite
def sites(draw: st.DrawFn) -> Site:
    kind = draw(st.sampled_from(list(KINDS)))
    template, axes = KINDS[kind]
    return Site(
        kind=kind,
        layer=draw(st.integers(0, 200)) if "{l}" in template else None,
        port=draw(st.sampled_from("qkv")) if "{p}" in template else None,
        head=draw(st.none() | st.integers(0, 99)) if "head" in axes else None,
    )


@given(sites())
def test_a_site_reads_back_from_its_string(site: Site) -> None:
    assert Site.parse(str(site)) == site


@given(st.lists(sites(), min_size=2, max_size=8))
def test_sites_sort_as_a_forward_pass_runs(found: list[Site]) -> None:
    ordered = sorted(found)
    layers = [
        -1 if s.kind in ("embed", "pos_embed") else 10**6 if s.layer is None else s.layer for s in ordered
    ]
    assert layers == sorted(layers)


def test_the_names_are_the_fields() -> None:
    assert str(Site(kind="resid_post", layer=3)) == "blocks.3.hook_resid_post"
    assert str(Site(kind="z", layer=0, head=5)) == "blocks.0.attn.hook_z[5]"
    assert str(Site(kind="attn_in", layer=1, head=2, port="q")) == "blocks.1.hook_q_input[2]"
    assert Site.parse("blocks.2.hook_out") == Site(kind="resid_post", layer=2)
    assert Site.parse("blocks.2.hook_in") == Site(kind="resid_pre", layer=2)
    assert Site.parse("encoder.layer.0") == Site(kind="module", path="encoder.layer.0")
    assert str(Site.parse("encoder.0:in")) == "encoder.0:in"


def test_module_paths_sort_naturally() -> None:
    names = ["layers.10", "layers.2", "layers.1"]
    assert [str(s) for s in sorted(map(Site.parse, names))] == ["layers.1", "layers.2", "layers.10"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "resid_pst", "layer": 0}, "no kind of site 'resid_pst'; did you mean 'resid_post'"),
        ({"kind": "resid_post"}, "needs layer"),
        ({"kind": "embed", "layer": 1}, "takes no layer"),
        ({"kind": "resid_post", "layer": 1, "head": 0}, "has no heads"),
        ({"kind": "attn_in", "layer": 1, "port": "x"}, "ports are q, k, v"),
        ({"kind": "module"}, "needs a module path"),
    ],
)
def test_impossible_sites_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(interp.InputError, match=message):
        Site(**fields)


@pytest.fixture
def table() -> SiteTable:
    found = [Site(kind="embed")]
    for layer in range(3):
        found += [Site(kind=kind, layer=layer) for kind in ("resid_pre", "z", "attn_out", "resid_post")]
    return SiteTable(found, heads={Site(kind="z", layer=layer): 4 for layer in range(3)})


def test_globs_find_in_forward_order_and_each_once(table: SiteTable) -> None:
    found = table.find(["blocks.*.hook_resid_post", "blocks.1.*", "hook_embed"])
    names = [str(s) for s in found]
    assert names[0] == "hook_embed"
    assert names.count("blocks.1.hook_resid_post") == 1
    assert names[1:3] == ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"]
    assert [str(s) for s in table.find("blocks.*.attn.hook_z[2]")] == [
        f"blocks.{i}.attn.hook_z[2]" for i in range(3)
    ]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ("blocks.0.hook_resid_pst", "did you mean 'blocks.0.hook_resid_post'"),
        ("blocks.7.hook_resid_post", r"did you mean 'blocks.2.hook_resid_post'.*3 layers, 0-2"),
        ("blocks.*.hook_nothing", "no site matches"),
        ("blocks.0.attn.hook_z[4]", "has 4 heads, 0-3"),
        ("", "empty"),
        ([], "no site was asked for"),
    ],
)
def test_unknown_sites_say_what_is_near(table: SiteTable, ask, message: str) -> None:
    with pytest.raises(interp.SiteError, match=message):
        table.find(ask)


def test_a_short_name_gives_way_to_a_module_of_that_name() -> None:
    from collections import OrderedDict

    import torch

    from tests.models import loaded

    net = torch.nn.Sequential(OrderedDict(embed=torch.nn.Linear(3, 4), logits=torch.nn.Linear(4, 2)))
    acts = interp.load(net).capture(torch.ones(5, 3), ["embed", "logits"])
    assert acts["embed"].shape == (5, 4)
    assert Site.parse(str(acts.sites[0])) == acts.sites[0]
    decoder = loaded("gpt2", "transformers")
    held = decoder.capture(torch.ones(1, 3, dtype=torch.long), ["embed", "logits"])
    assert held["logits"] is held["unembed.hook_out"]
    assert held["embed"] is held["hook_embed"]
