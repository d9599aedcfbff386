"""The report: says what is stored, lets nothing in, and is the same each time."""

from __future__ import annotations

import base64
import itertools
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import smeld as sm
import stored_section
from smeld import _keys, _report, _report_facts


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def written(adata, folder: Path, **options) -> Page:
    path = sm.report(adata, folder / "report.html", **options)
    return Page(path.read_text(encoding="utf-8"))


def test_says_what_is_stored(tmp_path):
    adata = stored_section.make()
    adata.obsm["morph_texture"] = pd.DataFrame(
        np.zeros((adata.n_obs, 2)), index=adata.obs_names, columns=["nuclear_density", "eosin_mean"]
    )
    adata.uns["fusion_evidence"] = pd.DataFrame({"modality": ["morphology"], "gain": [0.125]})
    page = written(adata, tmp_path)
    share = (adata.obs["domain_confidence"] > 0.9).mean()
    for said in (
        "168 spots, 4 domains; 20 genes.",
        f"{round(100 * share)} % of the spots are assigned with a confidence above 0.9",
        "Section slice",
        "10x Visium",
        "55 µm",
        "5 µm per pixel",
        "counts are not whole numbers",
        "nuclear_density, eosin_mean",
        "0.125",
        "alpha = 3",
        f"smeld {sm.__version__}",
        f"{adata.obs['total_counts'].median():,.0f} (90 % lie between",
    ):
        assert said in page.text, said
    assert len(page.all("img")) == 5
    assert "Not computed" not in page.text


def test_says_how_many_domains_and_why(tmp_path):
    adata = stored_section.make()
    params = {"n_domains": 4, "n_domains_from": "lowest BIC"}
    _keys.record(adata, "domain", function="sm.tl.domains", params=params, seed=0)
    adata.uns["domain_selection"] = pd.DataFrame({"n_domains": [3, 4], "bic": [17.25, 11.5]})
    adata.obs["low_counts"] = np.arange(adata.n_obs) < 9
    text = written(adata, tmp_path).text
    assert "Number of domains: 4 ( lowest BIC )" in text and "17.25" in text
    assert "Spots with unusually low counts (kept) 9" in text


def test_names_the_source_but_not_where_it_lay(tmp_path):
    adata = stored_section.make()
    for path in ("/home/somebody/sections/A1/", r"C:\Users\somebody\A1"):
        inputs = {"path": path, "platform": "visium"}
        _keys.record(adata, "read", function="smeld.read", params={"image": path + "/he.png"}, inputs=inputs)
        page = written(adata, tmp_path)
        assert "Source A1" in page.text and "path = A1" in page.text
        assert "somebody" not in page.text


def test_a_single_domain_claims_nothing(tmp_path):
    adata = stored_section.make(n_domains=1)
    adata.uns["domain_markers"] = adata.uns["domain_markers"].iloc[:0]
    text = written(adata, tmp_path).text
    assert "168 spots, 1 domain; " in text and "confidence says nothing" in text
    assert "uns['domain_markers'] is empty" in text


def test_numbers_of_the_domain_table():
    adata = stored_section.make()
    adata.obs["domain_confidence"] = np.linspace(0, 1, adata.n_obs)
    rows = _report_facts.domains(adata, "domain")
    for row in rows:
        chosen = adata.obs[adata.obs["domain"] == row["name"]]
        assert row["n"] == str(len(chosen))
        assert row["median"] == f"{chosen['domain_confidence'].median():.2f}"
        assert row["sure_share"] == pytest.approx((chosen["domain_confidence"] > 0.9).mean())
        means = adata.obsm["domain_prob"].loc[chosen.index].mean().drop(row["name"])
        assert row["other"].startswith(means.idxmax() + " (")


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0 %"), (1, "100 %"), (0.001, "under 1 %"), (0.999, "over 99 %"), (0.614, "61 %")]
)
def test_percent_never_rounds_to_none_or_all(share, said):
    assert _report_facts.percent(share) == said


def test_what_was_not_computed_is_said(tmp_path):
    adata = stored_section.make(image=False)
    bare = sm_bare(adata)
    page = written(bare, tmp_path)
    assert page.text.count("Not computed") == 6
    assert "Absent: no image is stored" in page.text and "domains were not computed" in page.text
    assert not page.all("img")


def sm_bare(adata):
    """Counts and coordinates alone."""
    from anndata import AnnData

    bare = AnnData(adata.X.copy())
    bare.obsm["spatial"] = bare.obsm["spatial_um"] = adata.obsm["spatial_um"]
    return bare


def test_without_image_the_domains_are_shown_alone(tmp_path):
    page = written(stored_section.make(image=False), tmp_path)
    assert len(page.all("img")) == 5
    assert "no image was given" in page.text and "Morphology was absent" in page.text
    with_image = written(stored_section.make(), tmp_path)
    assert "an image is stored, but no features" in with_image.text


def test_same_data_same_bytes(tmp_path):
    one = sm.report(stored_section.make(), tmp_path / "one.html").read_bytes()
    two = sm.report(stored_section.make(), tmp_path / "two.html").read_bytes()
    assert one == two


def test_a_stored_and_reopened_section_gives_the_same_report(tmp_path):
    import anndata

    adata = stored_section.make()
    adata.write_h5ad(tmp_path / "a.h5ad")
    one = sm.report(adata, tmp_path / "one.html").read_bytes()
    two = sm.report(anndata.read_h5ad(tmp_path / "a.h5ad"), tmp_path / "two.html").read_bytes()
    assert one == two


def test_nothing_is_written_to_the_data(tmp_path):
    adata = stored_section.make()
    before = adata.copy()
    sm.report(adata, tmp_path / "report.html")
    assert str(adata) == str(before)
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_loads_nothing_and_runs_nothing(tmp_path):
    path = sm.report(stored_section.hostile(), tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "form", "base", "video", "audio", "svg", "b"}
    for tag, attrs in page.tags:
        assert not [a for a in attrs if a.startswith("on")], tag
        if "src" in attrs:
            assert tag == "img" and attrs["src"].startswith("data:image/svg+xml;base64,")
        if "href" in attrs:
            assert attrs["href"] == "data:," or attrs["href"].startswith("#")
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "@import" not in html and "url(" not in html


def test_hostile_names_are_shown_and_inert(tmp_path):
    page = written(stored_section.hostile(), tmp_path)
    assert "<script>alert(1)</script>" in page.text and '"><img src=x onerror=alert(2)>' in page.text
    assert r"$\frac$" in page.text and "{{7*7}} &amp;" in page.text
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not [c for c in ("\x00", "\u202e", "\u202c") if c in raw]
    for image in page.all("img"):
        svg = base64.b64decode(image["src"].partition(",")[2]).decode()
        assert "<script" not in svg and "onerror=alert(2)>" not in svg.replace("&gt;", "")


@pytest.mark.parametrize("title", [None, "My <section>"])
def test_titles(tmp_path, title):
    page = written(stored_section.make(), tmp_path, title=title)
    assert f"{title or 'Section slice'} · smeld report" in page.text
    assert page.text.count(title or "Section slice") >= 2


def test_reads_well_to_a_screen_reader(tmp_path):
    page = written(stored_section.hostile(), tmp_path)
    assert page.all("html")[0]["lang"] == "en"
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)


def test_size_is_bounded_for_a_visium_section(tmp_path):
    adata = stored_section.make(rows=64, columns=78, n_domains=12, image_scale=0.15)
    shape = adata.uns["spatial"]["slice"]["images"]["hires"].shape
    assert max(shape) > 1900
    # noise is the worst case: no tissue compresses worse
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    adata.uns["spatial"]["slice"]["images"]["hires"] = noise
    assert sm.report(adata, tmp_path / "report.html").stat().st_size < 8e6
    smooth = np.full(shape, 180, np.uint8)
    adata.uns["spatial"]["slice"]["images"]["hires"] = smooth
    assert sm.report(adata, tmp_path / "report.html").stat().st_size < 5e6


def test_a_failed_report_leaves_the_old_one(tmp_path, monkeypatch):
    path = sm.report(stored_section.make(), tmp_path / "report.html")
    before = path.read_bytes()
    monkeypatch.setattr(_report, "_render", lambda content: "\ud800")  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        sm.report(stored_section.make(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_refuses_what_is_no_section(tmp_path):
    with pytest.raises(sm.InputError, match="AnnData or SpatialData"):
        sm.report("section.h5ad", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_finer_image_that_went_away_does_not_stop_the_report(tmp_path):
    adata = stored_section.make()
    metadata = adata.uns["spatial"]["slice"]["metadata"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG but no image")
    metadata |= {"image_path": str(broken), "image_scale": 1.0}
    assert "the finer image file cannot be read now" in written(adata, tmp_path).text
    assert str(tmp_path) not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_figures_are_saved_in_both_forms(tmp_path):
    found = _report.save_figures(stored_section.make(), tmp_path / "figures")
    names = ["section", "domains", "confidence", "quality_control", "embedding", "markers"]
    assert [p.name for p in found] == [f"{n}.{kind}" for n in names for kind in ("svg", "png")]
    assert sorted(found) == sorted((tmp_path / "figures").iterdir())
    assert all(p.stat().st_size > 3000 for p in found)
    bare = _report.save_figures(sm_bare(stored_section.make()), tmp_path / "bare")
    assert bare == []


def test_figures_are_drawn_without_pyplot(tmp_path):
    code = (
        "import sys, smeld as sm, stored_section\n"
        "from smeld import _report\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"sm.report(stored_section.make(), {str(tmp_path / 'r.html')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent, timeout=120)


@pytest.mark.slow
def test_a_million_cells(tmp_path):
    adata = stored_section.make(rows=1000, columns=1000, image=False)
    path = sm.report(adata, tmp_path / "report.html")
    assert path.stat().st_size < 12e6


def test_pictures_drawn_for_files_are_those_of_the_report(tmp_path):
    """Taken from there, byte by byte what the report would have drawn."""
    adata = stored_section.make()
    _report.save_figures(adata, tmp_path / "figures")
    alone = sm.report(adata, tmp_path / "alone.html").read_bytes()
    beside = _report.write_report(adata, tmp_path / "beside.html", figures=tmp_path / "figures").read_bytes()
    assert beside == alone
