"""The viewer's page in a real browser, before a viewer that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _viewer_live
import numpy as np
import pytest
from anndata import AnnData

import chrome_pipe
import stored_section


@contextmanager
def a_browser(folder: Path, *flags: str) -> Iterator[chrome_pipe.Browser]:
    """A browser; the test is skipped where none is installed."""
    if chrome_pipe.find_browser() is None:
        pytest.skip(f"no browser is installed ({', '.join(chrome_pipe.BROWSERS)})")
    with chrome_pipe.Browser(folder, flags=flags) as browser:
        yield browser


def stored(folder: Path, adata: AnnData | None = None) -> Path:
    """A result on disk."""
    path = folder / "result.h5ad"
    (adata if adata is not None else _viewer_live.section()).write_h5ad(path)
    return path


def two_sections() -> AnnData:
    """The small section twice, as sections A and B of one table; B is turned over and has other counts."""
    import anndata

    a, b = _viewer_live.section(image=False), _viewer_live.section(image=False, seed=5)
    b.obsm["spatial_um"] = b.obsm["spatial_um"] * [1.0, -1.0] + [0.0, 2000.0]
    both = anndata.concat({"A": a, "B": b}, label="sample", index_unique="-")
    both.uns["domain_markers"] = a.uns["domain_markers"]
    both.uns["smeld"] = {"domain": {"params": {"batch_key": "sample"}}}
    return both


def hostile() -> AnnData:
    """Hostile names for genes, domains, cells, columns, the section and tables; as far as h5ad can hold them."""
    names = [name.replace("\x00", "\x01") for name in stored_section.HOSTILE]
    keys = ["<img src=x onerror=alert(3)>", "\u202egpj.exe", "=cmd|' 'C0'!A0"]
    adata = _viewer_live.section()
    genes = [names[i % len(names)] + (str(i) if i >= len(names) else "") for i in range(adata.n_vars)]
    known = dict(zip(adata.var_names, genes, strict=True))
    adata.var_names = genes
    adata.obs_names = [names[i] if i < len(names) else f"s{i}" for i in range(adata.n_obs)]
    adata.obs["domain"] = adata.obs["domain"].cat.rename_categories(dict(zip("1234", names, strict=False)))
    for key in keys:
        adata.obs[key] = adata.obs["domain"]
    adata.obsm["X_umap"] = np.asarray(adata.obsm["X_umap"])
    del adata.obsm["domain_prob"]
    table = adata.uns["domain_markers"]
    adata.uns["domain_markers"] = table.assign(domain=names[0], gene=table["gene"].map(known))
    pairs = adata.uns["interactions"]
    adata.uns["interactions"] = pairs.assign(ligand=pairs["ligand"].map(known), receptor=pairs["receptor"].map(known))
    adata.uns["spatial"] = {keys[0]: adata.uns["spatial"]["slice"]}
    return adata


def opened(browser: chrome_pipe.Browser, client: Any, query: str = "", **size: int) -> chrome_pipe.Page:
    """The page once the first picture is there."""
    page = browser.page(**size)
    page.goto(f"http://127.0.0.1:{client.port}/?token={_viewer_live.TOKEN}")
    if query:
        page.goto(f"http://127.0.0.1:{client.port}/{query}")
    page.wait("smeld.probe.ready")
    return page


def quiet(page: chrome_pipe.Page, origin: str) -> None:
    """The page said nothing on the console and asked nobody else."""
    assert page.console == [] and page.evaluate("smeld.probe.errors") == []
    assert [r for r in page.requests if not r.startswith((origin, "data:", "blob:"))] == []


def ring(page: chrome_pipe.Page, part: float = 0.3, selector: str = ".pane.section") -> list[tuple[float, float]]:
    """Places of the window on a circle around the middle of a pane."""
    x, y, w, h = page.evaluate(
        f"(() => {{ const r = document.querySelector('{selector}').getBoundingClientRect();"
        "return [r.left + r.width / 2, r.top + r.height / 2, r.width, r.height]; })()"
    )
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = part * min(w, h)
    return [(float(x + radius * np.cos(a)), float(y + radius * np.sin(a))) for a in angle]


def expected_rows(page: chrome_pipe.Page, places: list[tuple[float, float]], xy: np.ndarray) -> np.ndarray:
    """Rows whose cells lie inside a shape drawn through places of the window: even-odd, point by point."""
    said = page.evaluate(f"{[list(p) for p in places]}.map(([x, y]) => smeld.app.panes[0].toData(x, y))")
    corners = np.asarray(said)
    start, end = corners, np.roll(corners, -1, axis=0)
    odd = np.zeros(len(xy), dtype=bool)
    for (ax, ay), (bx, by) in zip(start, end, strict=True):
        if ay != by:
            across = (ay > xy[:, 1]) != (by > xy[:, 1])
            odd ^= across & (xy[:, 0] < (bx - ax) * (xy[:, 1] - ay) / (by - ay) + ax)
    return np.flatnonzero(odd)
