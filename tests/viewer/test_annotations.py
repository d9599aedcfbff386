"""Annotations: kept beside the result at every change, written into it whole, read back, refused where they must."""

from __future__ import annotations

import base64
import json
import shutil
import time
from pathlib import Path
from typing import Any

import _viewer_live as live
import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import smeld as sm
import stored_section
from smeld import io
from smeld.viewer import _annotations, _fold, _shapes
from smeld.viewer._source import open_result

BLUE, RED = {"name": "tumour", "color": "#0072B2"}, {"name": "=stroma", "color": "#D55E00"}
SQUARE = [[100.0, 100.0], [500.0, 100.0], [500.0, 500.0], [100.0, 500.0]]


def packed(rows: Any) -> str:
    return base64.b64encode(np.asarray(rows, dtype="<u4").tobytes()).decode()


def shape(k: int = 1, category: str = "tumour", rings: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": f"s{k}", "category": category, "kind": "lasso", "rings_um": rings or [SQUARE], **more}


def state(revision: int = 0, **changed: Any) -> dict[str, Any]:
    given_ = {
        "categories": [BLUE, RED],
        "shapes": [shape()],
        "cells": {"tumour": packed([3, 1, 1]), "=stroma": packed([5])},
    }
    return {"revision": revision, **given_, **changed}


def opened(path: Path, column: str = "annotation", author: str = "Ada") -> _annotations.Books:
    return _annotations.Books(open_result(path), column, author)


def put(books: _annotations.Books, content: dict[str, Any], k: int = 0) -> tuple[int, dict[str, Any]]:
    status, body = books.sections[k].put(json.dumps(content).encode())
    return status, json.loads(body)


def current(books: _annotations.Books, k: int = 0) -> dict[str, Any]:
    return json.loads(books.sections[k].state())


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result that no test changes."""
    path = tmp_path_factory.mktemp("untouched") / "result.h5ad"
    io.write(stored_section.make(image=False), path)
    return path


@pytest.fixture
def result(untouched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(untouched, tmp_path / "result.h5ad"))


def datasets(path: Path) -> dict[str, Any]:
    """Every array of a file by name, and its attributes."""
    found: dict[str, Any] = {}
    with h5py.File(path) as root:
        root.visititems(lambda name, node: found.update({name: node[()] if hasattr(node, "shape") else None}))
        found |= {f"{name}@": dict(root[name].attrs) for name in list(found)}
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    equal_nan = isinstance(a, np.ndarray) and a.dtype.kind == "f"
    return bool(np.array_equal(a, b, equal_nan=equal_nan))


# -- into the result and back --------------------------------------------------------------------------------


def test_what_is_drawn_is_saved_and_opens_again(result: Path) -> None:
    before = result.read_bytes()
    books = opened(result)
    assert current(books) == {"revision": 0, "categories": [], "shapes": [], "cells": {}}
    assert put(books, state()) == (200, {"revision": 1, "author": "Ada"})
    assert result.read_bytes() == before, "the result is written at the end"
    again = current(opened(result))
    assert again == current(books)
    assert again["cells"] == {"tumour": packed([1, 3]), "=stroma": packed([5])}
    assert again["shapes"][0]["author"] == "Ada"
    assert (
        abs(time.time() - time.mktime(time.strptime(again["shapes"][0]["time"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone)
        < 60
    )


def test_the_result_gets_the_column_and_keeps_all_else(result: Path) -> None:
    before = datasets(result)
    books = opened(result)
    put(books, state())
    books.close()
    after = datasets(result)
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed == {"obs@"}
    new = {name.split("@")[0] for name in set(after) - set(before)}
    starts = ("obs/annotation", "uns/annotation_colors", "uns/annotations", "uns/smeld/annotation")
    assert all(name.startswith(starts) for name in new)
    adata = io.read(result, "h5ad")
    column = adata.obs["annotation"]
    assert list(column.cat.categories) == ["tumour", "=stroma"]
    assert column.iloc[[1, 3]].tolist() == ["tumour"] * 2 and column.iloc[5] == "=stroma" and column.notna().sum() == 3
    assert list(adata.uns["annotation_colors"]) == [BLUE["color"], RED["color"]]
    stored = adata.uns["annotations"]
    assert stored["author"] == "Ada" and stored["time"].endswith("Z")
    feature = json.loads(stored["geojson"])["features"][0]
    assert feature["geometry"] == {"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}
    assert feature["properties"]["author"] == "Ada"
    table = (result.parent / "annotations.csv").read_text().splitlines()
    assert table == ["cell,annotation", "spot0001,tumour", "spot0003,tumour", "spot0005,'=stroma"]
    sm.pl.domains(adata, key="annotation")


def test_the_result_alone_holds_all(result: Path) -> None:
    books = opened(result)
    put(books, state())
    said = current(books)
    books.close()
    for path in result.parent.glob("annotations*"):
        path.unlink()
    assert current(opened(result)) == said
    assert current(opened(result, "other"))["revision"] == 0
    second = opened(result)
    assert put(second, state(1, categories=[BLUE], shapes=[], cells={}))[0] == 200
    second.close()
    assert io.read(result, "h5ad").obs["annotation"].notna().sum() == 0


def test_a_column_that_was_there_is_where_one_begins(tmp_path: Path) -> None:
    adata = stored_section.make(image=False)
    adata.obs["layer"] = pd.Categorical(["a", "b"] * (adata.n_obs // 2))
    io.write(adata, tmp_path / "mine.h5ad")
    books = opened(tmp_path / "mine.h5ad", "layer")
    said = current(books)
    assert [c["name"] for c in said["categories"]] == ["a", "b"]
    assert said["cells"]["b"] == packed(np.arange(1, adata.n_obs, 2))
    put(books, {**said, "cells": {**said["cells"], "a": packed([1])}})
    assert (tmp_path / "mine.annotations-layer.geojson").is_file()
    books.close()
    found = io.read(tmp_path / "mine.h5ad", "h5ad").obs["layer"]
    assert found.iloc[1] == "b" and pd.isna(found.iloc[0]), "of two categories the later one counts"


def test_sections_of_a_file_share_one_column(tmp_path: Path) -> None:
    adata = stored_section.make(image=False)
    adata.obs["section"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "b", "a"))
    adata.uns["smeld"]["domain"] = {"params": {"batch_key": "section"}}
    io.write(adata, tmp_path / "result.h5ad")
    books = opened(tmp_path / "result.h5ad")
    put(books, state(cells={"tumour": packed([0, 1])}), 0)
    put(books, state(cells={"=stroma": packed([0])}, shapes=[]), 1)
    again = opened(tmp_path / "result.h5ad")
    assert current(again, 0)["cells"] == {"tumour": packed([0, 1])} and current(again, 1)["cells"] == {
        "=stroma": packed([0])
    }
    assert len(current(again, 0)["shapes"]) == 1 and not current(again, 1)["shapes"]
    books.close()
    column = io.read(tmp_path / "result.h5ad", "h5ad").obs["annotation"]
    assert {i: column.iloc[i] for i in np.flatnonzero(column.notna())} == {0: "tumour", 2: "tumour", 1: "=stroma"}


def test_samples_of_a_cohort_are_annotated_apart(untouched: Path, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        (tmp_path / name).mkdir()
        shutil.copy(untouched, tmp_path / name)
    (tmp_path / "summary.csv").write_text("sample\ns1\ns2\n")
    books = opened(tmp_path)
    assert put(books, state(), 1)[0] == 200
    assert not (tmp_path / "s1" / "annotations.geojson").exists()
    assert current(opened(tmp_path), 1) == current(books, 1)
    assert books.close() == (["s2/result.h5ad"], {})
    assert (tmp_path / "s1" / "result.h5ad").read_bytes() == untouched.read_bytes()
    assert io.read(tmp_path / "s2" / "result.h5ad", "h5ad").obs["annotation"].notna().sum() == 3


def test_a_stale_state_is_not_taken(result: Path) -> None:
    one, other = opened(result), opened(result, author="Grace")
    assert put(one, state())[0] == 200
    status, said = put(other, state(shapes=[]))
    assert status == 409 and said["revision"] == 1 and said["shapes"], "another viewer's work is seen"
    assert put(other, state(1, shapes=[shape(), shape(2)]))[0] == 200
    assert [s["author"] for s in current(one)["shapes"]] == ["Ada", "Grace"]


def test_author_and_time_are_the_server_s(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = opened(result)
    monkeypatch.setattr(_annotations, "now", lambda: "2026-01-01T00:00:00Z")
    put(books, state(shapes=[shape(1, author="Mallory", time="1999"), shape(2)]))
    monkeypatch.setattr(_annotations, "now", lambda: "2026-02-02T00:00:00Z")
    moved = [[x + 1, y] for x, y in SQUARE]
    put(books, state(1, shapes=[shape(1, author="Mallory"), shape(2, rings=[moved])]))
    found = {s["id"]: (s["author"], s["time"]) for s in current(books)["shapes"]}
    assert found == {"s1": ("Ada", "2026-01-01T00:00:00Z"), "s2": ("Ada", "2026-02-02T00:00:00Z")}


# -- whatever goes wrong -------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_result(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = opened(result)
    put(books, state())
    before, names = result.read_bytes(), {p.name for p in result.parent.iterdir()}

    def broken(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_fold, "_put", broken)
    assert books.close() == ([], {"result.h5ad": "No space left on device"})
    assert result.read_bytes() == before
    assert {p.name for p in result.parent.iterdir()} == names, "nothing is left behind"
    monkeypatch.undo()
    books.close()
    assert io.read(result, "h5ad").obs["annotation"].notna().sum() == 3


def test_a_state_that_cannot_be_saved_is_not_kept(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = opened(result)

    def broken() -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(books.books[0], "as_geojson", broken)
    with pytest.raises(OSError, match="No space"):
        put(books, state())
    assert current(books)["revision"] == 0


def test_another_result_in_its_place_is_not_written_to(result: Path) -> None:
    books = opened(result)
    put(books, state())
    io.write(stored_section.make(image=False, rows=6), result)
    written, failed = books.close()
    assert written == [] and "not the file that was opened" in failed["result.h5ad"]
    assert (result.parent / "annotations.geojson").is_file()


def test_the_same_cells_in_another_order_are_not_written_to(result: Path) -> None:
    """As many cells are no proof: the labels would stick to the wrong ones."""
    books = opened(result)
    put(books, state())
    io.write(stored_section.make(image=False)[::-1].copy(), result)
    before = result.read_bytes()
    assert "not the file that was opened" in books.close()[1]["result.h5ad"]
    assert result.read_bytes() == before


def test_one_result_that_cannot_be_written_does_not_keep_others_from_it(untouched: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(untouched, tmp_path / name / "result.h5ad")
    (tmp_path / "summary.csv").write_text("sample\na\nb\n")
    books = opened(tmp_path)
    put(books, state(), 0)
    put(books, state(), 1)
    (tmp_path / "a" / "result.h5ad").unlink()
    written, failed = books.close()
    assert written == ["b/result.h5ad"] and list(failed) == ["a/result.h5ad"]


@pytest.mark.parametrize("ending", [".geojson", ".csv"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_beside_the_result_is_not_followed(result: Path, ending: str, there: bool) -> None:
    """A result from elsewhere could have a file of the user's written over."""
    mine = result.parent / "mine"
    mine.mkdir()
    if there:
        (mine / "notes").write_text("mine")
    (result.parent / f"annotations{ending}").symlink_to(mine / "notes")
    if ending == ".geojson":
        with pytest.raises(sm.InputError, match="is a link"):
            opened(result)
    else:
        books = opened(result)
        put(books, state())
        assert "is a link" in books.close()[1]["result.h5ad"]
    assert [p.read_text() for p in mine.iterdir()] == ["mine"] * there


GOOD_SECTION = {"revision": 1, "categories": [BLUE], "cells": {"tumour": {"runs": [0, 2]}}}
GOOD_FEATURE = {
    "type": "Feature",
    "id": "s1",
    "geometry": {"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]},
    "properties": {"classification": "tumour", "section": "section", "kind": "lasso", "author": "A", "time": "2026"},
}
BROKEN: dict[str, Any] = {
    "a list": [1],
    "no shapes": {"type": "FeatureCollection", "features": []},
    "a revision that is no number": {"section": {"revision": "abc"}},
    "a negative revision": {"section": {"revision": -1}},
    "cells of no category": {"section": {"cells": {"other": {"runs": [0, 2]}}}},
    "cells beyond the last": {"section": {"cells": {"tumour": {"runs": [160, 900]}}}},
    "cells that are a list": {"section": {"cells": [1]}},
    "half a run": {"section": {"cells": {"tumour": {"runs": [0]}}}},
    "a colour that is none": {"section": {"categories": [{"name": "tumour", "color": "red;}"}]}},
    "a shape of no category": {"feature": {"properties": {**GOOD_FEATURE["properties"], "classification": "x"}}},
    "a kind that is none": {"feature": {"properties": {**GOOD_FEATURE["properties"], "kind": "<b>"}}},
    "an author of a million letters": {
        "feature": {"properties": {**GOOD_FEATURE["properties"], "author": "a" * 10**6}}
    },
    "a point": {"feature": {"geometry": {"type": "Point", "coordinates": [0, 0]}}},
    "coordinates beyond": {"feature": {"geometry": {"type": "Polygon", "coordinates": [[[1e300, 0]] * 4]}}},
    "features that are none": {"features": [3]},
    "two shapes of one name": {"features": [GOOD_FEATURE, GOOD_FEATURE]},
}


def beside(changed: dict[str, Any], name: str) -> bytes:
    """The file beside a result, well but for what is changed."""
    feature = {**GOOD_FEATURE, **changed.get("feature", {})}
    feature["properties"] = {**feature["properties"], "section": name}
    facts = {**GOOD_SECTION, **changed.get("section", {})}
    features = changed.get("features", [feature])
    for one in features:
        if isinstance(one, dict):
            one["properties"]["section"] = name
    content = {"type": "FeatureCollection", "features": features, "smeld": {"sections": {name: facts}}}
    return json.dumps(content).encode()


def test_a_file_beside_the_result_as_the_next_tests_break_it(result: Path) -> None:
    (result.parent / "annotations.geojson").write_bytes(beside({}, open_result(result).sections[0].name))
    found = current(opened(result))
    assert found["revision"] == 1 and len(found["shapes"]) == 1 and found["shapes"][0]["author"] == "A"


@pytest.mark.parametrize("name", [*BROKEN, "half of one"])
def test_a_broken_file_beside_the_result_is_said(result: Path, name: str) -> None:
    section, file = open_result(result).sections[0].name, result.parent / "annotations.geojson"
    if name == "half of one":
        content = beside({}, section)[:-30]
    elif {"section", "feature", "features"} & set(BROKEN[name]) and "type" not in BROKEN[name]:
        content = beside(BROKEN[name], section)
    else:
        content = json.dumps(BROKEN[name]).encode()
    file.write_bytes(content)
    with pytest.raises(sm.InputError, match="move it away") as said:
        opened(result)
    assert len(str(said.value)) < 400
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "ä", "x" * 61, "-_", "a\x00"])
def test_columns_have_plain_names(result: Path, name: str) -> None:
    with pytest.raises(sm.InputError, match="plain name"):
        opened(result, name)


NAN = float("nan")
BAD: dict[str, dict[str, Any]] = {
    "no revision": {"revision": None},
    "a revision that is true": {"revision": True},
    "a negative revision": {"revision": -1},
    "categories of numbers": {"categories": [1]},
    "a colour by name": {"categories": [{"name": "tumour", "color": "red"}]},
    "a colour with a rule": {"categories": [{"name": "tumour", "color": "#0072B2;url(x)"}]},
    "two alike": {"categories": [BLUE, BLUE]},
    "no name": {"categories": [{"name": " ", "color": "#0072B2"}]},
    "a long name": {"categories": [{"name": "x" * 201, "color": "#0072B2"}]},
    "half a character": {"categories": [{"name": "\ud800", "color": "#0072B2"}]},
    "too many categories": {"categories": [{"name": f"c{i}", "color": "#0072B2"} for i in range(201)]},
    "shapes as an object": {"shapes": {}},
    "too many shapes": {"shapes": [shape(i) for i in range(5001)]},
    "an unknown category": {"shapes": [shape(category="other")]},
    "an unknown kind": {"shapes": [shape(kind="star")]},
    "two ids alike": {"shapes": [shape(), shape()]},
    "an id that is a number": {"shapes": [shape() | {"id": 3}]},
    "two vertices": {"shapes": [shape(rings=[SQUARE[:2]])]},
    "no ring": {"shapes": [shape() | {"rings_um": []}]},
    "vertices of words": {"shapes": [shape(rings=[[["a", "b"]] * 3])]},
    "vertices that are true": {"shapes": [shape(rings=[[[True, False]] * 3])]},
    "vertices beyond the world": {"shapes": [shape(rings=[[[1e300, 0]] * 3])]},
    "vertices that are NaN": {"shapes": [shape(rings=[[[NAN, 0]] * 3])]},
    "cells of no category": {"cells": {"other": packed([1])}},
    "cells as a list": {"cells": [1, 2]},
    "cells beyond the last": {"cells": {"tumour": packed([168])}},
    "no base64": {"cells": {"tumour": "??"}},
    "half a number": {"cells": {"tumour": "AAA="}},
    "runs beyond the last": {"cells": {"tumour": {"runs": [160, 9]}}},
    "runs that overlap": {"cells": {"tumour": {"runs": [0, 168] * 2}}},
    "half a run": {"cells": {"tumour": {"runs": [1]}}},
    "huge runs": {"cells": {"tumour": {"runs": [0, 10**15]}}},
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_taken(untouched: Path, name: str) -> None:
    books = opened(untouched)
    with pytest.raises(sm.InputError) as caught:
        put(books, state(**BAD[name]))
    assert "nothing was saved" in str(caught.value) and len(str(caught.value)) < 400
    assert current(books)["revision"] == 0 and not (untouched.parent / "annotations.geojson").exists()


def test_runs_are_rows() -> None:
    assert _annotations.rows_of({"runs": [2, 3, 7, 1]}, 8).tolist() == [2, 3, 4, 7]


# -- GeoJSON -------------------------------------------------------------------------------------------------


def test_geojson_out_and_in_again(result: Path, tmp_path: Path) -> None:
    hole = [[200.0, 200.0], [300.0, 200.0], [300.0, 300.0], [200.0, 300.0]]
    island = [[240.0, 240.0], [260.0, 240.0], [260.0, 260.0], [240.0, 260.0]]
    far = [[x + 700, y] for x, y in SQUARE]
    books = opened(result)
    put(books, state(shapes=[shape(rings=[SQUARE, hole, island, far])], cells={}))
    content = json.loads(books.sections[0].geojson())
    geometry = content["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    assert [[ring[:-1] for ring in part] for part in geometry["coordinates"]] == [[SQUARE, hole], [island], [far]]
    assert content["features"][0]["properties"]["classification"] == {"name": "tumour", "color": [0, 0x72, 0xB2]}
    (tmp_path / "other").mkdir()
    shutil.copy(result, tmp_path / "other")
    other = opened(tmp_path / "other" / "result.h5ad", author="Grace")
    status, said = other.sections[0].imported(json.dumps(content).encode())
    taken = json.loads(said)
    assert status == 200 and taken["revision"] == 1 and taken["categories"] == [BLUE]
    assert sorted(map(sorted, taken["shapes"][0]["rings_um"])) == sorted(map(sorted, [SQUARE, hole, island, far]))
    assert taken["shapes"][0]["author"] == "Grace"
    xy = io.read(result, "h5ad").obsm["spatial_um"]

    def within(low: float, high: float, right: float = 0.0) -> np.ndarray:
        x, y = xy[:, 0] - right, xy[:, 1]
        return (x >= low) & (x < high) & (y >= low) & (y < high)

    rows = within(100, 500) & ~within(200, 300) | within(240, 260) | within(100, 500, 700)
    assert taken["cells"]["tumour"] == packed(np.flatnonzero(rows))
    again = json.loads(other.sections[0].imported(json.dumps(content).encode())[1])
    assert again["revision"] == 2 and len(again["shapes"]) == 2 and again["cells"] == taken["cells"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"type": "Topology"}',
        b'{"type": "FeatureCollection", "features": []}',
        b'{"type": "FeatureCollection", "features": [null]}',
        b'{"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}}',
        b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}}',
        b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, Infinity]]]}}',
        b'{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": {"a": 1}}}',
        b'{"type": "Feature", "properties": {"name": 5},'
        b' "geometry": {"type": "Polygon", "coordinates": [[[0,0],[1,1],[1,2]]]}}',
        b'{"a":' * 100_000,
    ],
)
def test_geojson_that_is_not_taken(untouched: Path, content: bytes) -> None:
    books = opened(untouched)
    with pytest.raises(sm.InputError) as caught:
        books.sections[0].imported(content)
    assert len(str(caught.value).splitlines()) == 1
    assert current(books)["revision"] == 0


coordinate = st.integers(-8, 8).map(float) | st.floats(-8, 8, width=32)
ring = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(ring, min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_inside_is_even_and_odd(rings: list[list[tuple[float, float]]], seed: int) -> None:
    """Against a winding of each ring by angles, modulo two; points on an edge are left out of the comparison."""
    xy = np.random.default_rng(seed).uniform(-9, 9, (60, 2))
    expected = np.zeros(len(xy), dtype=bool)
    near = np.full(len(xy), np.inf)
    for one in rings:
        ends = np.asarray(one)
        to = ends[None] - xy[:, None]
        after = np.roll(to, -1, axis=1)
        cross = to[..., 0] * after[..., 1] - to[..., 1] * after[..., 0]
        turn = np.arctan2(cross, (to * after).sum(axis=2)).sum(axis=1)
        expected ^= np.round(turn / (2 * np.pi)).astype(int) % 2 == 1
        side = after - to
        length = np.maximum((side**2).sum(axis=2), 1e-30)
        t = np.clip(-(to * side).sum(axis=2) / length, 0, 1)
        near = np.minimum(near, np.linalg.norm(to + t[..., None] * side, axis=2).min(axis=1))
    clear = near > 1e-6
    assume(clear.any())
    found = _shapes.inside([[list(map(float, p)) for p in one] for one in rings], xy)
    assert np.array_equal(found[clear], expected[clear])


# -- through the server --------------------------------------------------------------------------------------


def test_the_server_saves_and_writes_at_the_end(result: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs smeld[viewer]")
    path = "/api/0/annotations"
    with live.running(result.parent, annotate="annotation", author="Ada") as client:
        assert client.json("/api/state.json")["annotate"]
        assert client.ask("PUT", f"{path}.json", json.dumps(state()).encode()).status == 200
        stale = client.ask("PUT", f"{path}.json", json.dumps(state()).encode())
        assert stale.status == 409 and json.loads(stale.body)["revision"] == 1
        features = client.json(f"{path}.geojson")
        assert client.ask("POST", f"{path}/import", json.dumps(features).encode()).status == 200
        assert "annotation" not in anndata.read_h5ad(result).obs
        folded = client.ask("POST", "/api/0/fold", b"{}")
        assert json.loads(folded.body) == {"saved": "result.h5ad", "column": "annotation"}
        n = anndata.read_h5ad(result).obs["annotation"].notna().sum()
        last = client.json(f"{path}.json")
        last["cells"]["=stroma"] = packed([100, 101])
        assert client.ask("PUT", f"{path}.json", json.dumps(last).encode()).status == 200
        assert client.ask("GET", "/api/0/xy.bin").body.startswith(b"SMELD"), "the data are served on"
    assert anndata.read_h5ad(result).obs["annotation"].notna().sum() == n + 1


def test_a_full_disk_is_said_and_nothing_is_lost(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="needs smeld[viewer]")
    path = "/api/0/annotations.json"

    def full(book: _annotations.Book) -> None:
        raise OSError(28, "No space left on device", "/home/ada/secret")

    with live.running(result.parent, annotate="annotation", author="Ada") as client:
        assert client.ask("PUT", path, json.dumps(state()).encode()).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(_annotations.Book, "save", full)
            reply = client.ask("PUT", path, json.dumps(state(1, shapes=[])).encode())
        assert reply.status == 507 and "No space left" in reply.line and "secret" not in reply.line
        assert client.json(path)["revision"] == 1 and client.json(path)["shapes"]
        assert client.ask("PUT", path, json.dumps(state(1)).encode()).status == 200, "tried again, it is taken"


def test_what_cannot_be_written_at_the_end_is_an_error(result: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs smeld[viewer]")
    with (
        pytest.raises(sm.InputError, match=r"could not be written into the result.*beside the result"),
        live.running(result.parent, annotate="annotation", author="Ada") as client,
    ):
        assert client.ask("PUT", "/api/0/annotations.json", json.dumps(state()).encode()).status == 200
        io.write(stored_section.make(image=False, rows=6), result)
    assert (result.parent / "annotations.geojson").is_file()
