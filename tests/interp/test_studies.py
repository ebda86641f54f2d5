"""Presets, findings and their joins, kept sections, networks that read numbers, and what a study leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import interp
from interp.cli import main
from interp.errors import InputError
from interp.report import read
from interp.report.page import render
from interp.study import stations as registry
from interp.study.analysis import analyze
from interp.study.effort import DEEP, QUICK, STANDARD, Effort, effort_of
from interp.study.feeding import labels_of, model_of_rows, tokens_of_rows
from interp.study.findings import STREAM, Bearings, Finding
from interp.study.job import MAX_TOKENS, prepare
from interp.study.joining import alike, joined, place_of
from interp.study.keeping import keep, kept
from interp.study.sourcefile import is_source, made_by
from interp.study.stations import Leaf, Section, Study
from interp.toys import Shape, Transformer
from tests.interp.fake_stations import Fake, section


@pytest.fixture
def toy() -> interp.Model:
    shape = Shape(d_vocab=11, n_ctx=6, n_layers=2, d_model=8, n_heads=2, d_mlp=16)
    return interp.load(Transformer(shape, generator=torch.Generator().manual_seed(0)))


def register(monkeypatch: pytest.MonkeyPatch, *found: Fake) -> None:
    monkeypatch.setattr(registry, "stations", lambda: tuple(found))


# -- effort -----------------------------------------------------------------------------------------


def test_an_effort_scales_amounts_but_not_below_the_least() -> None:
    assert (QUICK.of(1000), STANDARD.of(1000), DEEP.of(1000)) == (200, 1000, 1000)
    assert QUICK.of(1000, least=500) == 500
    assert QUICK.of(3) == 1
    assert QUICK.of(300, least=500) == 300  # never more than the usual amount
    assert [e.full for e in (QUICK, STANDARD, DEEP)] == [False, False, True]
    own = Effort(name="mine", scale=2.0)
    assert effort_of(own) is own
    assert effort_of("deep") is DEEP
    with pytest.raises(InputError, match="no preset 'dep'; did you mean 'deep'"):
        effort_of("dep")
    with pytest.raises(InputError, match="above 0"):
        Effort(scale=0)


def test_stations_are_told_the_effort_and_another_one_is_another_study(toy, tmp_path, monkeypatch) -> None:
    seen: list[Effort] = []

    def looking(study: Study) -> Section:
        seen.append(study.effort)
        return section(study)

    register(monkeypatch, Fake("good", 1, looking))
    for preset in ("quick", "deep", "deep"):
        done = analyze(toy, out=tmp_path, max_tokens=60, preset=preset, resume=True)
    assert seen == [QUICK, DEEP]
    page = read(done.json)
    assert ["Preset", "deep"] in page["facts"]
    assert page["provenance"]["preset"]["full"] is True
    assert prepare(toy, preset="quick").material.tokens.ids.numel() <= QUICK.of(MAX_TOKENS)


def test_the_time_foretold_is_said_before_and_kept_beside_the_time_taken(
    toy, tmp_path, monkeypatch, caplog
) -> None:
    register(monkeypatch, Fake("good", 1, section))
    with caplog.at_level("INFO", logger="interp"):
        done = analyze(toy, out=tmp_path, max_tokens=60)
    said = [r.getMessage() for r in caplog.records if r.getMessage().startswith("The good station")]
    assert len(said) == 2
    assert "about" in said[0]
    found = done.sections[0]
    assert found["expected"] > 0
    assert "foretold" in done.html.read_text("utf-8")


# -- findings and joins -----------------------------------------------------------------------------


def finding(**changed: object) -> Finding:
    given = {
        "kind": "probe",
        "name": "mood",
        "site": "blocks.0.hook_resid_post",
        "measure": "accuracy",
        "value": 0.9,
    }
    return Finding(**{**given, **changed})  # type: ignore[arg-type]


def test_a_finding_is_clear_by_the_low_end_of_its_interval() -> None:
    assert finding().clear
    assert finding(chance=0.5).clear
    assert finding(chance=0.5, low=0.6, high=0.95).clear
    assert not finding(chance=0.5, low=0.4, high=0.95).clear
    assert not finding(chance=0.5, value=None).clear


@pytest.mark.parametrize(
    ("site", "place"),
    [
        ("", "whole model"), ("blocks.0.hook_resid_pre", "before the blocks"), ("hook_embed", "before the blocks"),
        ("blocks.2.attn.hook_z[1]", "block 2"), ("ln_final.hook_out", "after the blocks"), ("encoder.0", "encoder.0"),
    ],
)  # fmt: skip
def test_every_site_has_a_row_in_the_index(site: str, place: str) -> None:
    assert place_of(site) == place


def directions(kind: str, site: str, vectors: torch.Tensor, *, written: bool = False) -> Bearings:
    names = tuple(f"{kind} {i}" for i in range(len(vectors)))
    return Bearings(kind=kind, space=STREAM, site=site, names=names, vectors=vectors, written=written)


def random(n: int, d: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def shown(finding: Finding) -> dict[str, object]:
    from interp.report.content import outcome

    one = Section(name="s", title="S", summary="", findings=(finding,))
    return outcome("s", "S", section=one)


def test_a_planted_common_direction_is_linked_and_unrelated_ones_are_not() -> None:
    latents = random(100)
    probes = torch.stack([3 * latents[17] + 0.3 * random(1, seed=5)[0], random(1, seed=6)[0]])
    site = "blocks.1.hook_resid_post"
    index = joined(
        [shown(finding())], [directions("probe", site, probes), directions("latent", site, latents)], []
    )
    assert index is not None
    (table,) = index["links"]
    clear = [(row[0]["text"], row[2]["text"]) for row in table["rows"] if row[0]["clear"]]
    assert clear == [("probe 0", "latent 17")]
    grey = [row for row in table["rows"] if not row[0]["clear"]]
    assert [row[0]["text"] for row in grey] == ["probe 1"]
    assert abs(grey[0][4]) <= grey[0][5]


def test_chance_is_what_the_best_of_all_candidates_reaches() -> None:
    one, many, drawn = random(200, seed=1), random(100, seed=2), random(400, seed=3)
    cosine, level = alike(one, many, drawn)
    above = (np.abs(cosine).max(1) > level).mean()
    assert 0.005 < above < 0.12  # 5% of 200 by construction, within 3 standard errors of both draws
    unit = (
        torch.nn.functional.normalize(one.double(), dim=1)
        @ torch.nn.functional.normalize(many.double(), dim=1).T
    )
    np.testing.assert_allclose(cosine, unit.numpy(), atol=1e-12)


def test_what_a_part_writes_meets_only_sites_behind_it() -> None:
    late = directions("part", "blocks.2.attn.hook_result[0]", random(1, seed=4), written=True)
    early = directions("part", "blocks.0.attn.hook_result[0]", random(1, seed=4), written=True)
    latents = directions("latent", "blocks.1.hook_resid_post", random(50))
    assert joined([shown(finding())], [late, latents], [])["links"] == []  # type: ignore[index]
    (table,) = joined([shown(finding())], [early, latents], [])["links"]  # type: ignore[index]
    assert table["rows"][0][1] == "blocks.0.attn.hook_result[0]"
    elsewhere = replace(latents, space="encoder.0")
    assert joined([shown(finding())], [early, elsewhere], [])["links"] == []  # type: ignore[index]


def test_a_study_without_findings_has_no_index() -> None:
    assert joined([shown(finding(shown=False))], [], []) is None


def test_the_index_on_the_page_leads_to_what_it_lists_and_to_nothing_foreign(
    toy, tmp_path, monkeypatch
) -> None:
    def telling(study: Study) -> Section:
        told, site, latents = section(study), "blocks.1.hook_resid_post", random(30)
        (study.out / "own.html").write_text("<p>own")
        return replace(
            told,
            plates=(replace(told.plates[0], anchor="curve"), *told.plates[1:]),
            leaves=(Leaf(title="A page of its own", path=study.out / "own.html"),),
            findings=(
                finding(href="#curve", low=0.8, high=1.0),
                finding(name="unclear", chance=0.95),
                finding(name="own", href=study.link("own.html", "#f=3")),
                finding(name="evil", href="javascript:window.PWN=1"),
                finding(name="away", href="https://example.com/x"),
                finding(name="up", href="../../etc/passwd"),
            ),
            bearings=(
                directions("probe", site, torch.stack([latents[7], random(1, seed=9)[0]])),
                replace(
                    directions("latent", site, latents),
                    hrefs=tuple(study.link("own.html", f"#f={i}") for i in range(len(latents))),
                ),
            ),
        )

    register(monkeypatch, Fake("good", 1, telling))
    done = analyze(toy, out=tmp_path, max_tokens=60)
    html = done.html.read_text("utf-8")
    assert html.count('<tr class="unclear">') == 1  # of two probes one points along a latent
    assert '<a href="stations/good/own.html#f=7">latent 7</a>' in html
    assert '<li class="unclear">' in html
    assert '<a href="#curve">mood 0.9 ± 0.1 accuracy</a>' in html
    assert 'id="curve"' in html
    assert html.count('href="stations/good/own.html"') == 1
    assert (tmp_path / "stations/good/own.html").is_file()
    for foreign in ("javascript:", "example.com", "etc/passwd"):
        assert f'href="{foreign}' not in html
    assert "evil 0.9 accuracy" in html


def test_a_page_outside_the_report_and_a_crooked_anchor_are_refused(toy, tmp_path, monkeypatch) -> None:
    leaf = Leaf(title="away", path=Path("/etc/hosts"))
    register(
        monkeypatch,
        Fake("away", 1, lambda s: replace(section(s), leaves=(leaf,))),
        Fake("odd", 2, lambda s: replace(section(s), plates=(replace(section(s).plates[0], anchor='a"b'),))),
    )
    done = analyze(toy, out=tmp_path, max_tokens=60)
    assert "outside the report's folder" in done.sections[0]["reason"]
    assert "an anchor is made of" in done.sections[1]["reason"]


def test_reports_of_earlier_versions_are_still_drawn(toy, tmp_path, monkeypatch) -> None:
    register(monkeypatch, Fake("good", 1, section))
    old = read(analyze(toy, out=tmp_path, max_tokens=60).json)
    del old["index"]
    for one in old["sections"]:
        for name in ("expected", "leaves", "findings"):
            del one[name]
        for part in (*one["plates"], *one["tables"]):
            del part["anchor"]
    assert "All is well." in render(old)


# -- kept sections ------------------------------------------------------------------------------------


def test_a_section_is_taken_over_with_its_vectors_or_not_at_all(tmp_path) -> None:
    path, given = tmp_path / "good.json", directions("latent", "blocks.1.hook_resid_post", random(3))
    keep(path, "key", {"name": "good"}, [given])
    found = kept(path, "key")
    assert found is not None
    assert found[0] == {"name": "good"}
    assert torch.equal(found[1][0].vectors, given.vectors)
    assert found[1][0].describe() == given.describe()
    assert kept(path, "another key") is None
    vectors = path.with_suffix(".safetensors")
    vectors.write_bytes(vectors.read_bytes()[:-5])
    assert kept(path, "key") is None
    vectors.unlink()
    assert kept(path, "key") is None


# -- networks that read numbers ------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def rows_of(n: int = 80) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(3))


def test_a_network_of_numbers_is_asked_by_row_and_is_not_changed() -> None:
    torch.manual_seed(0)
    net, x = Net(), rows_of()
    model, tokens = model_of_rows(net, x), tokens_of_rows(len(x), most=1000, seed=0)
    assert model.name == "Net"
    torch.testing.assert_close(model.logits(tokens), net(x))
    torch.testing.assert_close(model.capture(tokens[:7], "first")["first"], net.first(x[:7]))
    ablated = model.logits(tokens[:4], edits=[interp.ablate("first", how="zero")])
    torch.testing.assert_close(ablated, net.last.bias.expand(4, -1))
    assert type(net) is Net
    assert "_rows" not in vars(net)
    assert not net._forward_hooks
    assert not net._forward_pre_hooks
    torch.testing.assert_close(net(x[:2]), model.logits(tokens[:2]))
    few = tokens_of_rows(80, most=10, seed=1)
    assert len(few) == 10
    assert few.show(3) == "row 3"


def test_a_study_of_a_plain_network_probes_its_own_labels_and_says_what_does_not_apply(tmp_path) -> None:
    torch.manual_seed(0)
    x = rows_of(200)
    labels = {"positive": (x[:, 0] > 0).long()}
    done = analyze(
        Net(), out=tmp_path, inputs=x, labels=labels, stations=["probe", "circuit"], preset="quick"
    )
    probe, circuit = done.sections
    assert probe["status"] == "done"
    assert max(probe["numbers"]["positive"]["accuracy"]) > 0.9
    assert circuit["status"] == "skipped"
    assert "one token long" in circuit["reason"]
    frame = done.to_frame()
    assert set(frame["kind"]) == {"probe"}
    assert done.results.keys() == {"probe"}
    assert read(done.json)["subtitle"] == "Studied on 200 given inputs."


def test_labels_that_do_not_fit_are_refused_by_name() -> None:
    tokens = tokens_of_rows(4, most=10, seed=0)
    with pytest.raises(InputError, match="label 'y' is \\[3\\]: one number an input"):
        labels_of({"y": torch.zeros(3, dtype=torch.long)}, tokens, by_row=True)
    with pytest.raises(InputError, match="'y' holds fractions"):
        labels_of({"y": torch.zeros(4)}, tokens, by_row=True)
    with pytest.raises(InputError, match="one entry a token"):
        labels_of({"y": torch.zeros(4, 2, dtype=torch.long)}, tokens, by_row=False)
    with pytest.raises(InputError, match="two samples or more"):
        model_of_rows(Net(), torch.zeros(5))
    with pytest.raises(InputError, match="one of them"):
        prepare(Net(), inputs=rows_of(), texts=["a"])


def test_a_function_in_a_file_gives_model_inputs_and_labels(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    x = torch.arange(40.0).view(10, 4)\n"
        "    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), x, {'odd': torch.arange(10) % 2}\n"
        "def bare():\n    return 3\ndef broken():\n    raise KeyError('x')\n"
    )
    assert is_source("a/b.py:make")
    assert not any(map(is_source, ("group:C59", "a/b.py", "a/b.py:", "gpt2", "a.py:1x")))
    made = made_by(f"{file}:make")
    assert made.inputs is not None
    assert made.inputs.shape == (10, 4)
    assert list(made.labels) == ["odd"]
    for name, message in (
        ("mak", "has no function 'mak'; did you mean 'make'"),
        ("bare", "returned int"),
        ("broken", "raised KeyError"),
    ):
        with pytest.raises(InputError, match=message):
            made_by(f"{file}:{name}")
    with pytest.raises(InputError, match="no file"):
        made_by(f"{tmp_path}/gone.py:make")
    register(monkeypatch, Fake("good", 1, section))
    assert main(["analyze", f"{file}:make", "--out", str(tmp_path / "r")]) == 0
    assert read(tmp_path / "r" / "report.json")["title"] == "Sequential"
    capsys.readouterr()


# -- the object -----------------------------------------------------------------------------------------


def test_a_study_is_an_object_that_shows_saves_and_tabulates_itself(toy, tmp_path, monkeypatch) -> None:
    def telling(study: Study) -> Section:
        (study.out / "own.html").write_text("<p>own")
        leaf = Leaf(title="own", path=study.out / "own.html")
        return replace(section(study), findings=(finding(),), leaves=(leaf,))

    register(monkeypatch, Fake("good", 1, telling))
    study = interp.analyze(toy, max_tokens=60)  # no folder: a temporary one
    assert study.html.is_file()
    frame = study.to_frame()
    assert frame.loc[0, ["station", "kind", "name", "value"]].tolist() == ["good", "probe", "mood", 0.9]
    assert study.results["good"]["cka"]["n"] == 12345
    copied = study.save(tmp_path / "copy")
    assert sorted(p.name for p in copied.parent.rglob("*") if p.is_file()) == [
        "own.html",
        "report.html",
        "report.json",
    ]
    frame_html = study._repr_html_()
    assert frame_html.startswith('<iframe sandbox="allow-scripts" srcdoc="')
    assert "<script>" not in frame_html  # the page is escaped, inside the frame's attribute
    json.dumps(study.results)
