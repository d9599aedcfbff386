"""Legacy Spatial Transcriptomics (Stahl et al. 2016): counts, a selection of spots, an H&E image, perhaps
labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _delimited, _lattice, _pictures, _section
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_SELECTION = "_selection.tsv"
_LABELS = "_labeled_coordinates.tsv"
_IMAGES = ("tif", "tiff", "jpg", "jpeg", "png")


@platforms.add(
    "legacy_st",
    marks=("*_selection.tsv",),
    looks_for="a folder with SAMPLE_selection.tsv and SAMPLE.tsv.gz (legacy Spatial Transcriptomics)",
)
def legacy_st(path: Path, options: ReadOptions) -> AnnData:
    """Spots 100 um wide on a square lattice of 200 um, named ``XxY`` after their lattice position.

    ``SAMPLE.tsv.gz`` (spots x genes) is joined with ``SAMPLE_selection.tsv`` (x, y, pixel_x, pixel_y) on the
    rounded x, y. ``SAMPLE_HE.*`` is the image. A non-empty ``SAMPLE_labeled_coordinates.tsv`` gives
    ``obs["label"]``, for scoring only.
    """
    sample = _sample(path)
    spots = _selection(path / f"{sample}{_SELECTION}")
    counts = _delimited.matrix(_counts_file(path, sample))
    names = [_spot_name(n) for n in counts.rows]
    _section.refuse_repeated(names, "spots of the counts")
    rows = _section.joined(names, spots.index.tolist())
    keep = rows >= 0
    if not keep.any():
        raise _check.problem(
            "spots of the counts and of the selection do not match",
            found=f"none of {len(rows)} in common, such as {_first(counts.rows)} and {_first(spots.index)}",
            cure="give both files of the same section",
        )
    adata = _table(counts, spots, keep=keep, rows=rows, options=options, sample=sample)
    _warn_unmatched(adata, n_without_counts=len(spots) - int(keep.sum()), n_not_selected=int((~keep).sum()))
    _add_labels(adata, path / f"{sample}{_LABELS}")
    image = options.image or next((p for k in _IMAGES if (p := path / f"{sample}_HE.{k}").is_file()), None)
    if image is not None:
        _pictures.attach(adata, adata.uns["spatial"][_section.library_name(sample)], image, options=options)
    return adata


def _sample(folder: Path) -> str:
    found = sorted(p.name.removesuffix(_SELECTION) for p in folder.glob(f"*{_SELECTION}"))
    if len(found) != 1:
        raise _check.problem(
            "one section a folder is needed" if found else f"SAMPLE{_SELECTION} is missing",
            found=_check.listed(found) if found else _check.listed(sorted(p.name for p in folder.iterdir())),
            cure="give each section a folder of its own",
        )
    return found[0]


def _counts_file(folder: Path, sample: str) -> Path:
    names = [f"{sample}{ending}" for ending in (".tsv.gz", ".tsv", "_counts.tsv.gz", "_counts.tsv")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise _check.problem(
        f"no matrix of counts: {names[0]} is missing",
        found=_check.listed(sorted(p.name for p in folder.iterdir())),
        cure="copy the table of counts into the folder",
    )


def _selection(path: Path) -> pd.DataFrame:
    """Selected spots by name, numbers in columns x, y, pixel_x, pixel_y."""
    import pandas as pd

    text = _delimited.table(path)
    needed = ("x", "y", "pixel_x", "pixel_y")
    missing = [c for c in needed if c not in text.columns]
    if missing:
        raise _check.problem(
            f"{path.name} has too few columns: {_check.listed(missing)} missing",
            found=_check.listed(text.columns),
            cure="copy the file again",
        )
    frame = pd.DataFrame({c: _delimited.numeric(text, c, where=path.name) for c in needed})
    if "selected" in text.columns:
        frame = frame[_delimited.numeric(text, "selected", where=path.name) != 0]
    _section.check_xy(frame[list(needed)].to_numpy())
    frame.index = pd.Index([_name(x, y) for x, y in zip(frame["x"], frame["y"])])
    _section.refuse_repeated(frame.index.tolist(), f"spots of {path.name}")
    return frame


def _name(x: float, y: float) -> str:
    return f"{round(x)}x{round(y)}"


def _spot_name(text: str) -> str:
    """``9.02x20.99`` and ``9x21`` are the same spot."""
    x, _, y = text.strip().partition("x")
    try:
        return _name(float(x), float(y))
    except (ValueError, OverflowError):
        raise _check.problem(
            "spots must be named by their lattice position, such as 10x13",
            found=repr(text[:40]),
            cure="give a table of spots x genes",
        ) from None


def _first(names: object) -> str:
    return repr(str(next(iter(names)))[:40])  # type: ignore[call-overload]


def _table(
    counts: _delimited.NamedMatrix,
    spots: pd.DataFrame,
    *,
    keep: NDArray[np.bool_],
    rows: NDArray[np.intp],
    options: ReadOptions,
    sample: str,
) -> AnnData:
    chosen = spots.iloc[rows[keep]]
    lattice = _lattice.square_um(spots["x"].round(), spots["y"].round())
    found = _lattice.fit(lattice, spots[["pixel_x", "pixel_y"]].to_numpy())
    um_per_unit, messages = _lattice.choose(found, options.um_per_unit)
    adata = _section.assemble(
        sparse.csr_matrix(counts.values[keep]), chosen[["pixel_x", "pixel_y"]].to_numpy(),
        um_per_unit=um_per_unit, spots=chosen.index.tolist(), genes=counts.columns,
        obs={f"array_{k}": chosen[c].round().astype(int).to_numpy() for k, c in (("row", "y"), ("col", "x"))},
    )  # fmt: skip
    _section.add_library(
        adata,
        _section.library_name(sample),
        platform="legacy_st",
        um_per_unit=um_per_unit,
        spot_um=_lattice.LEGACY_SPOT_UM,
    )
    for message in messages:
        _check.warn(message, adata)
    return adata


def _warn_unmatched(adata: AnnData, *, n_without_counts: int, n_not_selected: int) -> None:
    if n_without_counts:
        _check.warn(f"{n_without_counts} selected spots have no row of counts: they were left out", adata)
    if n_not_selected:
        _check.warn(f"{n_not_selected} spots with counts are not in the selection: they were left out", adata)


def _add_labels(adata: AnnData, path: Path) -> None:
    """``obs["label"]``, categorical, NaN where no label is given; an empty file means none."""
    import pandas as pd

    if not path.is_file() or not path.read_bytes().strip():
        return
    text = _delimited.table(path)
    if not {"x", "y", "label"} <= set(text.columns):
        _check.warn(f"{path.name} has no columns x, y and label: no labels were read", adata)
        return
    xy = np.column_stack([_delimited.numeric(text, c, where=path.name) for c in ("x", "y")])
    known = np.isfinite(xy).all(axis=1) & text["label"].notna().to_numpy()
    labels = {_name(x, y): label for (x, y), label in zip(xy[known], text["label"][known])}
    adata.obs["label"] = pd.Categorical([labels.get(name) for name in adata.obs_names])
