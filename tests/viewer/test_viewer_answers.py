"""What each address gives, against the AnnData that was stored: read by anndata, computed by numpy and scipy."""

from __future__ import annotations

import io as bytes_io
import json
import struct
from pathlib import Path
from typing import Any

import _viewer_live as live
import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

import smeld as sm
import stored_section
from smeld import _adapt, io
from smeld.viewer import _stored, _tiles, _wire
from smeld.viewer._answers import Answers
from smeld.viewer._source import open_result


def read(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A reader of its own, from the layout alone."""
    assert content[:8] == b"SMELD\x00\x01\x00"
    (size,) = struct.unpack("<I", content[8:12])
    header = json.loads(content[12 : 12 + size])
    assert (12 + size) % 8 == 0
    found = {}
    for array in header["arrays"]:
        start = 12 + size + array["offset"]
        assert start % 8 == 0
        code = {"float32": "f", "uint8": "B", "uint16": "H", "uint32": "I"}[array["dtype"]]
        n = int(np.prod(array["shape"]))
        values = struct.unpack_from(f"<{n}{code}", content, start)
        found[array["name"]] = np.array(values, dtype=array["dtype"]).reshape(array["shape"])
    return header, found


def full(content: bytes, n: int) -> np.ndarray:
    header, arrays = read(content)
    if header["kind"] == "dense":
        return arrays["values"]
    out = np.zeros(n, dtype=np.float32)
    assert np.all(np.diff(arrays["index"].astype(int)) > 0) and not np.isnan(arrays["values"]).any()
    out[arrays["index"]] = arrays["values"]
    return out


# -- the layout ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(_wire.DTYPES), max_size=4), st.integers(0, 9), st.text(max_size=12))
def test_packed_arrays_come_back(dtypes: list[str], n: int, fact: str) -> None:
    arrays = {f"a{i}": np.arange(n * (i + 1)).reshape(n, i + 1).astype(d) for i, d in enumerate(dtypes)}
    content = _wire.pack(arrays, fact=fact)
    for reader in (read, _wire.unpack):
        header, found = reader(content)
        assert header["fact"] == fact
        assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in arrays.items()}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32) | st.just(0.0) | st.just(np.nan), min_size=1, max_size=30))
def test_values_are_sparse_only_where_that_is_smaller(values: list[float]) -> None:
    given_ = np.array(values, dtype=np.float32)
    index = np.flatnonzero(given_)
    content = _wire.values(index, given_[index], len(given_))
    assert np.array_equal(full(content, len(given_)), given_, equal_nan=True)
    dense = _wire.pack({"values": given_})
    assert len(content) <= len(dense) + 80


@pytest.mark.parametrize(("n", "dtype", "none"), [(3, np.uint8, 255), (255, np.uint8, 255), (256, np.uint16, 65535)])
def test_codes(n: int, dtype: type, none: int) -> None:
    codes = _wire.codes([-1, 0, n - 1], n)
    assert codes.dtype == dtype and codes.tolist() == [none, 0, n - 1]


# -- a result ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[anndata.AnnData, Answers]:
    path = tmp_path_factory.mktemp("answers") / "result.h5ad"
    adata = live.section()
    adata.obs["few"] = pd.Categorical(["a"] * 3 + [None] * (adata.n_obs - 3))
    adata.obs["type"] = pd.Categorical(["B cell", "unknown"] * (adata.n_obs // 2))
    adata.obs["flag"] = np.arange(adata.n_obs) % 2 == 0
    adata.obs["maybe"] = pd.array([1, None] * (adata.n_obs // 2), dtype="Int64")
    adata.obs["barcode"] = adata.obs_names.astype(object)
    adata.obs["words"] = pd.Series(["x10", "x9"] * (adata.n_obs // 2), index=adata.obs_names, dtype=object)
    adata.obsm["cell_type_proportions"] = pd.DataFrame({"T": np.linspace(0, 1, adata.n_obs)}, index=adata.obs_names)
    adata.var["gene_ids"] = [f"ENSG{i}" for i in range(adata.n_vars)]
    adata.uns["few_colors"] = np.array(["#abcdef"], dtype=object)
    io.write(adata, path)
    return anndata.read_h5ad(path), Answers(open_result(path))


def get(answers: Answers, address: str) -> bytes:
    answer = answers.get(address)
    assert answer is not None, address
    return answer.body


def about(answers: Answers, k: int = 0) -> dict[str, Any]:
    return json.loads(get(answers, f"{k}/section.json"))


def test_positions_and_columns(stored: tuple[anndata.AnnData, Answers]) -> None:
    adata, answers = stored
    said = about(answers)
    x0, y0, x1, y1 = said["bounds_um"]
    _, arrays = read(get(answers, "0/xy.bin"))
    assert np.allclose(arrays["values"] + [x0, y0], adata.obsm["spatial_um"], atol=1e-3)
    assert [x1, y1] == adata.obsm["spatial_um"].max(axis=0).tolist()
    assert said["unit"] == "spot", "the platform counts in spots"
    assert said["n_obs"] == adata.n_obs and said["spot_um"] == stored_section.SPOT_UM and said["default"] == "domain"
    by_name = {c["name"]: (j, c) for j, c in enumerate(said["columns"])}
    assert "barcode" not in by_name, "names of cells are no labels"
    for name in ("domain", "few", "flag", "words"):
        j, column = by_name[name]
        codes = read(get(answers, f"0/column/{j}.bin"))[1]["values"]
        values = adata.obs[name].astype(str).where(adata.obs[name].notna(), None).to_numpy()
        expected = [None if c == 255 else column["categories"][c] for c in codes]
        assert expected == values.tolist()
        assert column["n"] == [expected.count(c) for c in column["categories"]]
        assert column["missing"] == expected.count(None)
    assert by_name["words"][1]["categories"] == ["x9", "x10"]
    assert by_name["few"][1]["colors"] == ["#ABCDEF"]
    assert len(set(bytes.fromhex(by_name["type"][1]["colors"][1][1:]))) == 1, "grey says that nothing is known"
    for name in ("domain_confidence", "pseudotime", "maybe", "total_counts"):
        j, column = by_name[name]
        values = read(get(answers, f"0/column/{j}.bin"))[1]["values"]
        expected = pd.to_numeric(adata.obs[name]).to_numpy(dtype=np.float32, na_value=np.nan)
        assert np.array_equal(values, expected, equal_nan=True)
        assert column["range"] == [float(np.nanmin(expected)), float(np.nanmax(expected))]
        assert column["missing"] == int(np.isnan(expected).sum())
    groups = {name: c["group"] for name, (_, c) in by_name.items()}
    assert groups["domain"] == "domains" and groups["domain_confidence"] == "confidence"
    assert groups["share of T"] == "cell types" and groups["g0–g1 score"] == "interactions"


def test_genes_tables_and_embeddings(stored: tuple[anndata.AnnData, Answers]) -> None:
    adata, answers = stored
    genes = json.loads(get(answers, "0/genes.json"))
    assert genes == {"names": list(adata.var_names), "also": list(adata.var["gene_ids"])}
    for i in (0, 7, adata.n_vars - 1):
        assert np.array_equal(full(get(answers, f"0/gene/{i}.bin"), adata.n_obs), adata.X[:, [i]].toarray().ravel())
    said = about(answers)
    j = [e["name"] for e in said["embeddings"]].index("X_umap")
    assert np.array_equal(read(get(answers, f"0/embedding/{j}.bin"))[1]["values"], adata.obsm["X_umap"])
    assert said["tables"][0]["title"] == "Markers"
    markers = json.loads(get(answers, "0/table/0.json"))
    frame = adata.uns["domain_markers"]
    assert markers["columns"] == list(frame.columns) and markers["genes"] == [markers["columns"].index("gene")]
    assert [row[:3] for row in markers["rows"]] == frame.iloc[:, :3].to_numpy().tolist()
    pairs = json.loads(get(answers, "0/table/1.json"))
    assert pairs["pairs"] == [0, 1] and pairs["rows"][1] == ["g2", "g3", None, 0.2]


def test_pairs_and_arrows(stored: tuple[anndata.AnnData, Answers]) -> None:
    adata, answers = stored
    content = get(answers, "0/pair/0/1.bin")
    assert read(content)[0]["stored"] is True
    expected = adata.obsm["interactions_score"][:, [0]].toarray().ravel()
    assert np.allclose(full(content, adata.n_obs), expected)
    content = get(answers, "0/pair/4/5.bin")
    assert read(content)[0]["stored"] is False
    from smeld.kernels.graph import spatial_graph

    near = spatial_graph(adata.obsm["spatial_um"]).connectivities
    x = adata.X.toarray()
    slow = [np.sqrt(x[i, 4] * x[near[[i]].indices, 5].mean()) for i in range(adata.n_obs)]
    assert np.allclose(full(content, adata.n_obs), slow, rtol=1e-5)
    kinds = [link["name"] for link in about(answers)["links"]]
    assert kinds == ["direction of the order", "g0–g1"], "the other pair is not significant"
    arrows = read(get(answers, "0/links/1.bin"))[1]
    assert arrows["weight"][0] == 1 and np.all(np.diff(arrows["weight"]) <= 0) and len(arrows["weight"]) <= 2000
    best = sorted(((x[j, 0] * x[i, 1], j, i) for i in range(len(x)) for j in near[[i]].indices), reverse=True)[0]
    xy = adata.obsm["spatial_um"] - adata.obsm["spatial_um"].min(axis=0)
    tops = [
        (a, b)
        for w, a, b in ((x[j, 0] * x[i, 1], j, i) for i in range(len(x)) for j in near[[i]].indices)
        if w == best[0]
    ]
    ends = [
        (
            int(np.abs(xy - arrows["from"][0]).sum(axis=1).argmin()),
            int(np.abs(xy - arrows["to"][0]).sum(axis=1).argmin()),
        )
    ]
    assert ends[0] in tops


def test_complexes_are_their_scarcest_subunit(stored: tuple[anndata.AnnData, Answers]) -> None:
    from smeld.lr._resource import JOIN
    from smeld.viewer import _source

    assert _source.JOIN == JOIN
    adata = stored[0].copy()
    adata.uns["interactions"] = pd.DataFrame({"ligand": ["g0+g5", "g1+no"], "receptor": ["g1", "g2+g3+g4"]})
    answers = Answers(open_result(adata))
    genes = json.loads(get(answers, "0/genes.json"))
    assert genes["names"] == [*adata.var_names, "g0+g5", "g2+g3+g4"] and len(genes["also"]) == len(genes["names"])
    x = adata.X.toarray()
    for name, parts in (("g0+g5", [0, 5]), ("g2+g3+g4", [2, 3, 4])):
        found = full(get(answers, f"0/gene/{genes['names'].index(name)}.bin"), adata.n_obs)
        assert np.array_equal(found, x[:, parts].min(axis=1))
    scores = adata.obsm["interactions_score"][:, [0]].toarray().ravel()
    assert np.allclose(full(get(answers, f"0/pair/{genes['names'].index('g0+g5')}/1.bin"), adata.n_obs), scores)
    assert answers.get(f"0/gene/{len(genes['names'])}.bin") is None


def test_outlines_in_a_box(stored: tuple[anndata.AnnData, Answers]) -> None:
    adata, answers = stored
    xy = adata.obsm["spatial_um"] - adata.obsm["spatial_um"].min(axis=0)
    header, found = read(get(answers, "0/outlines/-10_-5.5_310_200.bin"))
    inside = np.flatnonzero((xy[:, 0] <= 310) & (xy[:, 1] <= 200))
    assert header["complete"] and found["cell"].tolist() == inside.tolist()
    for k, cell in enumerate(inside):
        vertices = found["xy"][found["start"][k] : found["start"][k + 1]]
        assert np.allclose(vertices.mean(axis=0), xy[cell] + [0, -4 / 3], atol=1e-2)


def test_tiles_show_the_image_where_it_lies(stored: tuple[anndata.AnnData, Answers]) -> None:
    """A spot's pixel by the page's matrix is the pixel that smeld's own plots find; levels halve."""
    adata, answers = stored
    image = about(answers)["image"]
    picture = _adapt.image(adata)
    assert picture is not None
    matrix = np.array(image["um_to_px"])
    px = adata.obsm["spatial_um"] @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(px, _adapt.xy_px(adata, picture) + 0.5, atol=1e-6)
    tile = np.asarray(Image.open(bytes_io.BytesIO(get(answers, "0/tile/0/0_0.jpg"))))
    whole = picture.pixels()
    assert tile.shape[:2] == (min(256, whole.shape[0]), min(256, whole.shape[1]))
    assert np.abs(tile.astype(int) - whole[: tile.shape[0], : tile.shape[1]]).mean() < 4
    assert answers.get("0/tile/0/99_0.jpg") is None and answers.get(f"0/tile/{len(image['levels'])}/0_0.jpg") is None


def test_levels_of_a_large_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red says how far right a pixel is, green how far down: at every level, from the image and from the overview."""
    from smeld.viewer import _tiles

    monkeypatch.setattr(_tiles, "OVERVIEW_PX", 400)
    adata = stored_section.make()
    y, x = np.mgrid[0:1000, 0:1500]
    adata.uns["spatial"]["slice"]["images"]["hires"] = np.stack([x / 6, y / 6, 0 * x], axis=2).astype(np.uint8)
    io.write(adata, tmp_path / "result.h5ad")
    answers = Answers(open_result(tmp_path / "result.h5ad"))
    sizes = [(level["width"], level["height"]) for level in about(answers)["image"]["levels"]]
    assert sizes == [(1500, 1000), (750, 500), (375, 250), (188, 125)]
    for level, (column, row) in [(0, (5, 3)), (1, (2, 1)), (2, (1, 0)), (3, (0, 0))]:
        tile = np.asarray(Image.open(bytes_io.BytesIO(get(answers, f"0/tile/{level}/{column}_{row}.jpg"))))
        assert tile.shape[1::-1] == tuple(min(256, side - 256 * k) for side, k in zip(sizes[level], (column, row)))
        i, j = tile.shape[0] // 2, tile.shape[1] // 2
        shown = tile[i - 4 : i + 4, j - 4 : j + 4].mean(axis=(0, 1))
        expected = np.array([256 * column + j, 256 * row + i]) * 2**level / 6
        assert np.abs(shown[:2] - expected).max() < 3


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "memory", "memory csc", "memory dense"])
def test_genes_by_any_way(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sought, and from the index; in small pieces; also as one of several sections."""
    from smeld.viewer import _index

    monkeypatch.setattr(_index, "SLAB", 97)
    monkeypatch.setattr(_index, "MOST_IN_MEMORY", 0 if form == "csr" else 2**20)
    adata = stored_section.make()
    dense = adata.X.toarray()
    adata.X = {"csc": sparse.csc_matrix(dense), "dense": dense}.get(form.split(" ")[-1], sparse.csr_matrix(dense))
    adata.obs["section"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 3 == 0, "b", "a"))
    adata.uns["smeld"]["domain"] = {"params": {"batch_key": "section"}}
    given_: Any = adata
    if not form.startswith("memory"):
        given_ = tmp_path / "result.h5ad"
        io.write(adata, given_)
    result = open_result(given_)
    assert [s.name for s in result.sections] == ["a", "b"]
    genes = result.files[0].genes
    for _ in range(2):
        for i in (0, 3, adata.n_vars - 1):
            rows, values = genes.column(i)
            found = np.zeros(adata.n_obs, dtype=np.float32)
            found[rows] = values
            assert np.array_equal(found, dense[:, i])
            for k, name in enumerate(("a", "b")):
                assert np.array_equal(result.sections[k].gene_values(i), dense[adata.obs["section"] == name, i])
        genes.build()
        assert genes.done == 1.0
    result.close()


def test_sections_of_a_file_are_apart(tmp_path: Path) -> None:
    adata = live.section()
    adata.obs["sample"] = pd.Categorical(np.where(adata.obs["domain"].astype(int) > 2, "right", "left"))
    adata.obs["barcode"] = adata.obs_names.astype(object)
    entry = adata.uns["spatial"]["slice"]
    adata.uns["spatial"] = {"left": entry, "right": {**entry, "images": {}}}
    io.write(adata, tmp_path / "result.h5ad")
    answers = Answers(open_result(tmp_path / "result.h5ad"))
    left, right = about(answers, 0), about(answers, 1)
    assert (left["name"], right["name"]) == ("left", "right")
    assert left["n_obs"] + right["n_obs"] == adata.n_obs
    assert left["image"] is not None and right["image"] is None
    here = (adata.obs["sample"] == "right").to_numpy()
    assert right["bounds_um"][:2] == adata.obsm["spatial_um"][here].min(axis=0).tolist()
    j = [c["name"] for c in right["columns"]].index("pseudotime")
    values = read(get(answers, f"1/column/{j}.bin"))[1]["values"]
    assert np.array_equal(values, adata.obs["pseudotime"].to_numpy(dtype=np.float32)[here], equal_nan=True)


def test_a_cohort_offers_what_is_finished_and_nothing_outside(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    for name in ("s1", "s2"):
        (out / name).mkdir(parents=True)
        io.write(stored_section.make(image=False), out / name / "result.h5ad")
    io.write(stored_section.make(image=False), tmp_path / "result.h5ad")
    rows = ["sample,state", "s1,done", "s2,done", "failed,failed", "../,done", "..,done"]
    (out / "summary.csv").write_text("\n".join(rows), encoding="utf-8")
    assert [s.name for s in open_result(out).sections] == ["s1", "s2"]


def test_hostile_names_travel_as_text() -> None:
    answers = Answers(open_result(stored_section.hostile()))
    body = get(answers, "0/section.json")
    assert body.isascii() and b"\x00" not in body
    column = next(c for c in json.loads(body)["columns"] if c["name"] == "domain")
    assert column["categories"] == [name.replace("\x00", "\ufffd") for name in stored_section.HOSTILE[:4]]
    names = json.loads(get(answers, "0/genes.json"))["names"]
    assert {name.replace("\x00", "\ufffd") for name in stored_section.HOSTILE} <= set(names)


def test_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(sm.InputError, match="missing"):
        open_result(tmp_path / "nothing.h5ad")
    (tmp_path / "broken.h5ad").write_bytes(b"no file of this kind")
    with pytest.raises(sm.InputError, match=r"broken\.h5ad cannot be read"):
        open_result(tmp_path / "broken.h5ad")


def test_another_package_s_file_is_read_as_a_section_is(tmp_path: Path) -> None:
    adata = stored_section.make(image=False)
    del adata.obsm["spatial_um"]
    adata.write_h5ad(tmp_path / "theirs.h5ad")
    result = open_result(tmp_path / "theirs.h5ad")
    expected = io.read(tmp_path / "theirs.h5ad").obsm["spatial_um"]
    assert np.array_equal(result.sections[0].xy_um, expected)
    assert about(Answers(result))["n_genes"] == adata.n_vars


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """A column of another kind, an image that is none: the rest is shown."""
    adata = stored_section.make(image=True)
    (tmp_path / "he.tif").write_bytes(b"no image")
    adata.uns["spatial"]["slice"]["metadata"]["image_path"] = str(tmp_path / "he.tif")
    io.write(adata, tmp_path / "result.h5ad")
    names = {c["name"] for c in about(Answers(open_result(tmp_path / "result.h5ad")))["columns"]}
    with h5py.File(tmp_path / "result.h5ad", "r+") as root:
        root["obs"].create_group("odd").attrs["encoding-type"] = "of tomorrow"
        root["obs"].attrs["column-order"] = np.array([*root["obs"].attrs["column-order"], "odd"], dtype=object)
    said = about(Answers(open_result(tmp_path / "result.h5ad")))
    assert {c["name"] for c in said["columns"]} == names and said["image"] is not None


def test_text_of_many_rows_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    adata = stored_section.make(image=False)
    adata.obs["words"] = pd.Series(["x"] * adata.n_obs, index=adata.obs_names, dtype=object)
    io.write(adata, tmp_path / "result.h5ad")
    names = {c["name"] for c in about(Answers(open_result(tmp_path / "result.h5ad")))["columns"]}
    monkeypatch.setattr(_stored, "MOST_TEXT_ROWS", 10)
    fewer = {c["name"] for c in about(Answers(open_result(tmp_path / "result.h5ad")))["columns"]}
    assert names - fewer == {"words"}


@pytest.mark.parametrize("path", ["\\\\evil.example\\share\\he.png", "//evil.example/share/he.png"])
def test_an_image_on_another_machine_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """On some systems asking alone tells the other machine the user's name and a hash of the password."""
    monkeypatch.setattr(_tiles._image, "is_image", lambda path: pytest.fail("it was looked for"))
    assert _tiles._of_file({"image_path": path, "um_per_unit": 1.0}, 1.0) is None


def test_many_categories_have_colours_that_can_be_seen(tmp_path: Path) -> None:
    adata = stored_section.make(image=False)
    adata.obs["many"] = pd.Categorical([f"c{i // 2:03d}" for i in range(adata.n_obs)])
    adata.obs["flag"] = np.arange(adata.n_obs) % 2 == 0
    io.write(adata, tmp_path / "many.h5ad")
    column = next(c for c in about(Answers(open_result(tmp_path / "many.h5ad")))["columns"] if c["name"] == "many")
    assert len(column["colors"]) == adata.n_obs // 2
    light = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in column["colors"]]
    assert max(light) < 3 * 240, "on a page of #F7F8FA"
