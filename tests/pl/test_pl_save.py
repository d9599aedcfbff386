"""Figures as files: text stays text, photographs stay small, the same figure gives the same bytes."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import smeld as sm
import stored_section
from smeld.pl._save import render


def figure(adata=None):
    ax = Figure(figsize=(4, 3), layout="compressed").subplots()
    return sm.pl.domains(stored_section.make() if adata is None else adata, ax=ax).get_figure()


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_same_figure_same_bytes(kind):
    assert render(figure(), kind) == render(figure(), kind)


def test_text_is_text(tmp_path):
    assert b">Domains</text>" in render(figure(), "svg").replace(b"\n", b"")
    assert b"/FontFile2" in render(figure(), "pdf")  # TrueType, type 42: editable


def test_photographs_become_jpeg_and_look_the_same():
    adata = stored_section.make()
    rng = np.random.default_rng(0)
    shape = adata.uns["spatial"]["slice"]["images"]["hires"].shape
    smooth = np.asarray(Image.fromarray(rng.integers(90, 255, (24, 24, 3), np.uint8)).resize(shape[1::-1]))
    noisy = smooth + rng.normal(0, 6, shape)
    adata.uns["spatial"]["slice"]["images"]["hires"] = noisy.clip(0, 255).astype(np.uint8)
    ax = Figure(figsize=(4, 3), layout="compressed").subplots()
    svg = render(sm.pl.section(adata, ax=ax).get_figure(), "svg")
    found = re.search(rb"data:image/jpeg;base64,([^\"]+)", svg)
    assert found and b"image/png" not in svg
    packed = Image.open(io.BytesIO(base64.b64decode(found[1])))
    assert packed.mode == "RGB" and len(svg) < packed.width * packed.height


def test_pictures_with_transparency_stay_png():
    adata = stored_section.make(rows=60, columns=60, image=False)
    svg = render(figure(adata), "svg")
    assert b"image/png" in svg and b"image/jpeg" not in svg


def test_save_writes_what_its_ending_says(tmp_path):
    adata = stored_section.make()
    ax = sm.pl.domains(adata, ax=Figure().subplots())
    for ending, start in {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}.items():
        path = sm.pl.save(ax, tmp_path / f"domains.{ending}")
        assert path.read_bytes().startswith(start)
    panels = sm.pl.quality_control(adata, axes=Figure().subplots(1, 3))
    assert sm.pl.save(panels, tmp_path / "qc.png").stat().st_size > 1000
    with pytest.raises(sm.InputError, match="did you mean 'svg'"):
        sm.pl.save(ax, tmp_path / "domains.sgv")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "domains.pdf",
        "domains.png",
        "domains.svg",
        "qc.png",
    ]
