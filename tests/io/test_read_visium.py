"""Space Ranger folders: every version, joins by barcode, geometry, and each bad input with its good twin."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import _make
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def distances(xy: np.ndarray) -> np.ndarray:
    return np.linalg.norm(xy[:, None] - xy[None], axis=2)


FORMS = [
    {},
    {"version": 1},
    {"version": 1, "header": True},
    {"header": False},
    {"positions": "tissue_positions.parquet"},
    {"matrix": "filtered_mtx"},
    {"images": ("lowres",)},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_gives_the_same_section(tmp_path: Path, form: dict) -> None:
    sec = _make.section()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = sm.read(_make.spaceranger(tmp_path / "s", sec, **form))
    tissue = sec.in_tissue == 1
    assert adata.obs_names.tolist() == [b for b, k in zip(sec.barcodes, tissue) if k]
    assert adata.var_names.tolist() == sec.genes
    assert adata.var["gene_ids"].iloc[1] == "ENSG00000000001"
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.toarray(), sec.counts[tissue])
    assert np.allclose(adata.obsm["spatial"], sec.xy[tissue])
    assert np.allclose(distances(adata.obsm["spatial_um"]), distances(sec.um[tissue]))
    assert adata.obs["array_row"].tolist() == sec.row[tissue].tolist()
    meta = adata.uns["spatial"]["s"]["metadata"]
    assert meta[_keys.META_PLATFORM] == "visium"
    assert meta[_keys.META_SPOT_UM] == 55
    assert meta[_keys.META_UM_PER_UNIT] == pytest.approx(0.5)


@pytest.mark.parametrize("form", ["raw_h5", "raw_mtx"])
def test_raw_matrix_is_cut_to_the_tissue(tmp_path: Path, form: str) -> None:
    sec = _make.section()
    with pytest.warns(SmeldWarning, match="raw matrix"):
        adata = sm.read(_make.spaceranger(tmp_path / "s", sec, matrix=form))
    assert set(adata.obs_names) == {b for b, k in zip(sec.barcodes, sec.in_tissue) if k}
    assert any("raw matrix" in m for m in _keys.kept_warnings(adata))


def test_outs_and_its_parent_are_the_same(tmp_path: Path) -> None:
    _make.spaceranger(tmp_path / "sample" / "outs", _make.section())
    for path in (tmp_path / "sample", tmp_path / "sample" / "outs"):
        adata = sm.read(path)
        assert list(adata.uns["spatial"]) == ["sample"]


@given(seed=st.integers(0, 10_000), matrix_too=st.booleans())
def test_row_order_changes_nothing_but_order(tmp_path_factory, seed: int, matrix_too: bool) -> None:
    rng = np.random.default_rng(seed)
    base = tmp_path_factory.mktemp("order")
    sec = _make.section(seed=seed)
    one = sm.read(_make.spaceranger(base / "a" / "s", sec))
    n = len(sec.barcodes)
    shuffled = sec.permuted(rng.permutation(n)) if matrix_too else sec
    two = sm.read(_make.spaceranger(base / "b" / "s", shuffled, position_order=rng.permutation(n)))
    assert set(one.obs_names) == set(two.obs_names)
    two = two[one.obs_names].copy()
    assert (one.X != two.X).nnz == 0
    assert one.obs.equals(two.obs)
    for key in ("spatial", "spatial_um"):
        assert np.array_equal(one.obsm[key], two.obsm[key])  # to the last bit


@given(
    angle=st.floats(0, 2 * np.pi),
    flip=st.booleans(),
    um_per_px=st.floats(0.1, 4.0),
    shift=st.tuples(st.floats(10, 900), st.floats(10, 900)),
)
def test_turned_moved_and_rescaled_sections_have_the_same_distances(
    tmp_path_factory, angle, flip, um_per_px, shift
) -> None:
    sec = _make.section(angle=angle, flip=flip, um_per_px=um_per_px, shift=shift)
    adata = sm.read(_make.spaceranger(tmp_path_factory.mktemp("turn") / "s", sec))
    assert np.allclose(distances(adata.obsm["spatial_um"]), distances(sec.um[sec.in_tissue == 1]), rtol=1e-6, atol=1e-4)
    # one isotropic factor, same orientation
    ratio = adata.obsm["spatial_um"] / adata.obsm["spatial"]
    assert np.ptp(ratio) < 1e-9 * ratio.max()


def test_spot_diameter_is_not_used(tmp_path: Path) -> None:
    sec = _make.section()
    sec.factors.update(spot_diameter_fullres=1.0)
    adata = sm.read(_make.spaceranger(tmp_path / "s", sec))
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == pytest.approx(0.5)


def test_proteins_are_kept_apart(tmp_path: Path) -> None:
    sec = _make.section()
    types = ["Gene Expression"] * 10 + ["Antibody Capture"] * 2
    with pytest.warns(SmeldWarning, match="Antibody"):
        adata = sm.read(_make.spaceranger(tmp_path / "s", sec, types=types))
    assert adata.n_vars == 10
    protein = adata.obsm["protein"]
    assert protein.columns.tolist() == ["GENE10", "GENE11"]
    assert np.array_equal(protein.to_numpy(), sec.counts[sec.in_tissue == 1][:, 10:])


def test_barcodes_without_position_are_dropped(tmp_path: Path) -> None:
    sec = _make.section()
    folder = _make.spaceranger(tmp_path / "s", sec)
    lines = (folder / "spatial/tissue_positions.csv").read_text().splitlines()
    (folder / "spatial/tissue_positions.csv").write_text("\n".join(lines[:1] + lines[4:]))
    with pytest.warns(SmeldWarning, match="3 barcodes"):
        adata = sm.read(folder)
    assert adata.n_obs == (sec.in_tissue == 1).sum() - 3
    assert np.array_equal(adata.X.toarray(), sec.counts[sec.in_tissue == 1][3:])


# images


def test_images_and_their_scales(tmp_path: Path) -> None:
    sec = _make.section()
    adata = sm.read(_make.spaceranger(tmp_path / "s", sec))
    entry = adata.uns["spatial"]["s"]
    assert set(entry["images"]) == {"hires", "lowres"}
    assert entry["images"]["hires"].dtype == np.uint8
    image = _adapt.image(adata)
    assert image is not None
    assert image.shape == entry["images"]["hires"].shape[:2]
    assert image.um_per_px == pytest.approx(0.5 / entry["scalefactors"]["tissue_hires_scalef"])
    px = _adapt.xy_px(adata, image)
    assert (px > 0).all()
    assert (px < np.asarray(image.shape[::-1])).all()


@pytest.mark.parametrize("beside", [True, False])
def test_full_resolution_image_is_kept_as_a_path(tmp_path: Path, beside: bool) -> None:
    sec = _make.section()
    folder = _make.spaceranger(tmp_path / "s", sec)
    size = tuple(int(v) for v in sec.xy.max(axis=0) + 300)
    file = (folder / "spatial" if beside else tmp_path) / "tissue_fullres_image.tif"
    tifffile.imwrite(file, _make.picture(size), photometric="rgb", tile=(64, 64))
    adata = sm.read(folder) if beside else sm.read(folder, image=file)
    meta = _adapt.metadata(adata)
    assert meta[_keys.META_IMAGE_PATH] == str(file)
    image = _adapt.image(adata)
    assert image is not None
    assert image.shape == size[::-1]
    assert image.um_per_px == pytest.approx(0.5)
    preview = _adapt.image(adata, preview=True)
    assert preview is not None
    assert max(preview.shape) < max(image.shape)


def test_no_image_goes_on(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "s", _make.section(), images=())
    (folder / "spatial/scalefactors_json.json").unlink()
    with pytest.warns(SmeldWarning, match="no image"):
        adata = sm.read(folder)
    assert _adapt.image(adata) is None


def test_smaller_user_image_needs_its_scale(tmp_path: Path) -> None:
    sec = _make.section()
    folder = _make.spaceranger(tmp_path / "s", sec)
    extent = sec.xy.max(axis=0) + 300
    small = tmp_path / "half.png"
    Image.fromarray(_make.picture((int(extent[0] / 2), int(extent[1] / 2)))).save(small)
    with pytest.raises(InputError, match="--image-scale"):
        sm.read(folder, image=small)
    adata = sm.read(folder, image=small, image_scale=0.5)
    image = _adapt.image(adata)
    assert image is not None
    assert image.um_per_px == pytest.approx(1.0)


# bad input: (what is done to a good folder, what the message must name). The good twin is the folder before.


def _truncate(path: Path, share: float = 0.5) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def _positions(folder: Path) -> Path:
    return folder / "spatial/tissue_positions.csv"


def _edit(path: Path, change) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())))


def _factors(folder: Path, **changed) -> None:
    path = folder / "spatial/scalefactors_json.json"
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def _counts(folder: Path, change) -> None:
    sec = _make.section()
    counts = change(sec.counts.copy())
    _make.write_matrix(folder, _make.replace(sec, counts=counts))


def _barcodes(folder: Path, change) -> None:
    sec = _make.section()
    _make.write_matrix(folder, _make.replace(sec, barcodes=change(sec.barcodes)))


def _only_one_spot(folder: Path) -> None:
    sec = _make.section()
    in_tissue = np.zeros_like(sec.in_tissue)
    in_tissue[4] = 1
    _make.write_matrix(folder, _make.replace(sec, in_tissue=in_tissue))


BAD = {
    "no matrix": (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "no matrix of counts"),
    "no spatial": (lambda f: shutil.rmtree(f / "spatial"), "no folder spatial/"),
    "no positions": (lambda f: _positions(f).unlink(), "positions of the spots are missing"),
    "truncated h5": (lambda f: _truncate(f / "filtered_feature_bc_matrix.h5"), "truncated"),
    "h5 cut to its head": (
        lambda f: _truncate(f / "filtered_feature_bc_matrix.h5", 0.01),
        "copy the file again",
    ),
    "h5 is text": (
        lambda f: (f / "filtered_feature_bc_matrix.h5").write_text("hello"),
        "cannot be read as a matrix",
    ),
    "too few columns": (
        lambda f: _edit(_positions(f), lambda ls: [",".join(x.split(",")[:4]) for x in ls]),
        "too few columns: pxl_row",
    ),
    "foreign barcodes": (
        lambda f: _edit(_positions(f), lambda ls: [ls[0], *("X" + x for x in ls[1:])]),
        "do not match; found: none of 50",
    ),
    "NaN coordinate": (
        lambda f: _edit(_positions(f), lambda ls: [*ls[:3], ls[3].rpartition(",")[0] + ",nan", *ls[4:]]),
        "must be finite",
    ),
    "empty coordinate": (
        lambda f: _edit(_positions(f), lambda ls: [*ls[:3], ls[3].rpartition(",")[0] + ",", *ls[4:]]),
        "must be finite",
    ),
    "infinite coordinate": (
        lambda f: _edit(_positions(f), lambda ls: [*ls[:3], ls[3].rpartition(",")[0] + ",inf", *ls[4:]]),
        "must be finite",
    ),
    "words for numbers": (
        lambda f: _edit(_positions(f), lambda ls: [*ls[:3], ls[3] + "px", *ls[4:]]),
        "must hold numbers",
    ),
    "header only": (lambda f: _edit(_positions(f), lambda ls: ls[:1]), "holds no spot"),
    "empty positions": (lambda f: _positions(f).write_text(""), "empty"),
    "repeated position": (
        lambda f: _edit(_positions(f), lambda ls: [*ls, ls[5]]),
        "barcodes of the positions file must be unique",
    ),
    "repeated barcode": (
        lambda f: _barcodes(f, lambda bs: [bs[1], *bs[1:]]),
        "barcodes of the matrix must be unique",
    ),
    "negative counts": (lambda f: _counts(f, lambda c: c - 2), "counts cannot be negative"),
    "all zero": (lambda f: _counts(f, lambda c: c * 0), "nothing but zeros"),
    "no gene in matrix": (
        lambda f: _make.write_matrix(f, _make.replace(_make.section(), genes=[], counts=np.zeros((56, 0), dtype=int))),
        "holds no gene expression",
    ),
    "single spot": (_only_one_spot, "at least 2 spots"),
    "no spot in matrix": (
        lambda f: _make.write_matrix(f, _make.replace(_make.section(), in_tissue=np.zeros(56, dtype=int))),
        "the matrix is empty",
    ),
    "truncated image": (
        lambda f: _truncate(f / "spatial/tissue_hires_image.png"),
        "tissue_hires_image.png cannot be decoded",
    ),
    "image is text": (
        lambda f: (f / "spatial/tissue_lowres_image.png").write_text("no"),
        "cannot be decoded",
    ),
    "image too small": (
        lambda f: Image.new("RGB", (20, 20)).save(f / "spatial/tissue_hires_image.png"),
        "smaller than the coordinates",
    ),
    "factors not JSON": (lambda f: (f / "spatial/scalefactors_json.json").write_text("{"), "is not JSON"),
    "factors a list": (
        lambda f: (f / "spatial/scalefactors_json.json").write_text("[1]"),
        "holds no scale factors",
    ),
    "factors missing": (
        lambda f: (f / "spatial/scalefactors_json.json").unlink(),
        "scalefactors_json.json is missing",
    ),
    "key missing": (lambda f: _factors(f, tissue_hires_scalef=...), "tissue_hires_scalef is missing"),
    "factor zero": (lambda f: _factors(f, tissue_hires_scalef=0), "must be a positive number; found: 0"),
    "factor negative": (lambda f: _factors(f, tissue_lowres_scalef=-0.1), "must be a positive number"),
    "factor NaN": (lambda f: _factors(f, spot_diameter_fullres=float("nan")), "must be a positive number"),
    "factor a word": (lambda f: _factors(f, tissue_lowres_scalef="big"), "must be a positive number"),
    "factor true": (lambda f: _factors(f, tissue_lowres_scalef=True), "must be a positive number"),
    "visium hd too": (lambda f: (f / "binned_outputs/square_008um").mkdir(parents=True), "signs of visium, visium_hd"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path: Path, name: str) -> None:
    folder = _make.spaceranger(tmp_path / "s", _make.section())
    assert sm.read(folder).n_obs == 50  # the good twin
    damage, message = BAD[name]
    damage(folder)
    with pytest.raises(InputError) as error:
        sm.read(folder)
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert "cure:" in text


def test_pixel_limit_is_raised_by_option(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "s", _make.section())
    with pytest.raises(InputError, match="--max-megapixels"):
        sm.read(folder, max_megapixels=0.01)
    assert sm.read(folder, max_megapixels=1).n_obs == 50


@pytest.mark.parametrize("option", ["image_scale", "um_per_unit", "max_megapixels"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_options_must_be_positive(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(InputError, match="positive"):
        sm.read(tmp_path, **{option: value})


def test_damaged_mtx_folder(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "s", _make.section(), matrix="filtered_mtx")
    assert sm.read(folder).n_obs == 50
    _truncate(folder / "filtered_feature_bc_matrix/matrix.mtx.gz")
    with pytest.raises(InputError, match="truncated"):
        sm.read(folder)
    (folder / "filtered_feature_bc_matrix/barcodes.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"barcodes\.tsv"):
        sm.read(folder)


def test_noninteger_counts_and_repeated_genes_go_on(tmp_path: Path) -> None:
    sec = _make.section()
    sec.genes[3] = sec.genes[2]
    folder = _make.spaceranger(tmp_path / "s", _make.replace(sec, counts=sec.counts * 0.5))
    with pytest.warns(SmeldWarning) as caught:
        adata = sm.read(folder)
    said = " ".join(str(w.message) for w in caught)
    assert "not whole numbers" in said
    assert "more than once" in said
    assert adata.var_names.is_unique
    assert adata.var_names[3] == "GENE2-1"
    assert len(_keys.kept_warnings(adata)) == 2


def test_nan_off_the_tissue_does_no_harm(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "s", _make.section())
    good = sm.read(folder)
    _edit(_positions(folder), lambda ls: [*ls[:-1], ls[-1].rpartition(",")[0] + ",nan"])
    adata = sm.read(folder)
    assert np.allclose(adata.obsm["spatial_um"], good.obsm["spatial_um"])
