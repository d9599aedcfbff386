"""Sums over pairs of links for classes of links: against the same fields one by one, and what cannot vary."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import edgefields, linkclasses, linksums
from smeld.kernels.graph import row_normalise, spatial_graph

Float = NDArray[np.float64]


def section(form: str, side: int = 14) -> tuple[Float, sparse.csr_matrix]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    xy = 20.0 * (np.c_[x.ravel(), y.ravel()] + rng.uniform(-0.3, 0.3, (side**2, 2)))
    edges = spatial_graph(xy, kind="knn", n_neighbors=5).connectivities
    if form == "one way":
        edges = sparse.csr_matrix(sparse.triu(edges) + sparse.tril(edges) @ sparse.diags(np.arange(len(xy)) % 2.0))
        edges.eliminate_zeros()
    if form == "loops":
        edges = sparse.csr_matrix(edges + 0.5 * sparse.identity(len(xy)))
    made = row_normalise(edges)
    made.sort_indices()
    return xy, made


@pytest.mark.parametrize("parts", [1, 8])
@pytest.mark.parametrize("form", ["both ways", "one way", "loops"])
def test_all_classes_at_once_are_the_fields_one_by_one(form: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if parts > 1:
        monkeypatch.setattr(linksums, "MANY", 1)
        monkeypatch.setattr(linksums, "PARTS", parts)
    xy, weights = section(form)
    where = linksums.links(weights, xy)
    label = np.random.default_rng(4).integers(-1, 3, len(xy))
    types = (label[:, None] == np.arange(3)).astype(float)
    sender, receiver = (x.ravel() for x in np.indices((3, 3)))
    expected = edgefields.moments(where, lambda rows: (types[:, sender[rows]], types[:, receiver[rows]]), 9)
    found = edgefields._of_labels(where, label, 3)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-12)
    np.testing.assert_allclose(found.rows, expected.rows, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.uneven, expected.uneven, rtol=1e-12)


def test_a_class_of_all_links_and_one_of_none_do_not_vary() -> None:
    xy, weights = section("both ways")
    where = linksums.links(weights, xy)
    made = edgefields._of_labels(where, np.zeros(len(xy), dtype=np.intp), 2)
    assert not made.rows.any()
    assert made.total[0].sum() == pytest.approx(len(xy))


def test_single_precision_of_large_sections_changes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    xy, weights = section("both ways", side=30)
    where = linksums.links(weights, xy)
    label = np.random.default_rng(6).integers(0, 2, len(xy))
    of_link = label[where.sender] * 2 + label[where.receiver]
    mean = linkclasses.totals(where, of_link, 4) / where.weight.sum()
    double = linkclasses.by_bin(where, linkclasses.Classes(of_link, mean))
    monkeypatch.setattr(linksums, "LARGE", 1)
    single = linkclasses.by_bin(where, linkclasses.Classes(of_link, mean))
    counted = where.n_pairs > 0
    apart = np.abs(single - double)[:, counted] / np.sqrt(where.n_pairs[counted])
    assert apart.max() < 1e-5 * (np.abs(double)[:, counted] / np.sqrt(where.n_pairs[counted])).max()
