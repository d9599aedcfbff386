"""SpatialData ``.zarr`` stores, of zarr 2 and zarr 3. Images and labels stay on the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.io import _cells, _chunks, _elements, _section, _store_image, _stored
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
#: positions that a table brings are taken as those of a coordinate system if half of them lie this close to it, in
#: distances between neighbours: a vendor's centre of a cell is not its polygon's to the last digit
MAX_MISFIT = 0.25
#: newest layout of stores that we have seen
KNOWN_VERSION = (0, 2)
#: micrometres in the units that OME-Zarr names
_UNITS = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4}
_DELIVERED = "spatial_delivered"


@dataclass(frozen=True)
class Region:
    """An element that cells of the table are instances of: ``xy`` [n_rows, 2] in its own coordinates."""

    name: str
    element: Any
    rows: NDArray[np.intp]
    at: NDArray[np.intp]
    xy: F64
    systems: dict[str, F64]

    def frame(self, system: str | None) -> F64:
        """[3, 3] from its own coordinates to a system's; None means its own."""
        return np.eye(3) if system is None else self.systems[system]


@platforms.add(
    "spatialdata",
    marks=(".zattrs|.zgroup|zarr.json", "tables|table|shapes|points"),
    uses=("table", "outlines"),
    looks_for="a .zarr folder that SpatialData wrote",
)
def spatialdata_zarr(path: Path, options: ReadOptions) -> Any:
    """A SpatialData of whose tables one (``options.table``) has positions; images and labels are not loaded.

    ``obsm["spatial"]``: as the table brings it, if these are the positions of its region in some coordinate system;
    else the centres of the region's shapes or labels in the system "global", or its only one. Micrometres as for
    ``.h5ad``; else the unit that the store names. The image with most pixels that lies under the cells is used (three
    8-bit channels first), in place. With several tables ``sdata.attrs["smeld_table"]`` names the one used.
    """
    sdata = _load(path)
    name = _table_name(sdata, options.table)
    if len(sdata.tables) > 1:
        sdata.attrs[_adapt.TABLE_ATTR] = name
    adata = sdata.tables[name]
    _chunks.refuse_torn_matrix(adata.X, f"table {name!r}")
    regions = _regions(sdata, adata, name)
    if not regions:
        _stored.finish(adata, path.stem, "spatialdata", options)
        return sdata
    system = _place(adata, regions)
    if options.um_per_unit is None and _keys.SPATIAL_UM not in adata.obsm:
        options = replace(options, um_per_unit=_named_unit(path, regions[0], system))
    _store_image.forget_missing(adata)
    _stored.finish(adata, path.stem, "spatialdata", options)
    if options.image is None:
        _store_image.attach(adata, sdata, path, [(r.systems, r.frame(system)) for r in regions], options)
    if options.outlines:
        _add_outlines(adata, regions, system)
    return sdata


def _load(path: Path) -> Any:
    try:
        with _elements.quiet():
            import spatialdata
    except ImportError as error:
        raise _check.problem(
            f"{path.name} is a SpatialData store, which needs the package spatialdata",
            found=str(error)[:100],
            cure="pip install 'smeld[spatialdata]'",
        ) from error
    try:
        with _elements.quiet():
            return spatialdata.read_zarr(path)
    except Exception as error:  # zarr, anndata, pyarrow and others raise many kinds; all mean: not readable
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> _check.InputError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    written = _attributes(path).get("spatialdata_attrs", {})
    version = str(written.get("version", "")) if isinstance(written, dict) else ""
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    if numbers > KNOWN_VERSION:
        return _check.problem(
            f"{path.name} is of a newer layout than the installed spatialdata reads",
            found=f"version {version}, written by spatialdata {written.get('spatialdata_software_version', '?')};"
            f" {reason}",
            cure="pip install --upgrade spatialdata",
        )
    return _check.problem(
        f"{path.name} cannot be read as a SpatialData store",
        found=reason,
        cure="copy the folder again (it may not be whole), or write it with a current spatialdata",
    )


def _attributes(group: Path) -> dict[str, Any]:
    """The attributes of a zarr group, as they lie in its file."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = json.loads((group / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found = found.get("attributes", {}) if name == "zarr.json" and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}
    return {}


def _table_name(sdata: Any, wanted: str | None) -> str:
    names = [str(name) for name in sdata.tables]
    if wanted is not None:
        if wanted not in names:
            raise _check.unknown("table", wanted, names)
        return wanted
    if not names:
        elements = [*sdata.shapes, *sdata.labels, *sdata.points, *sdata.images]
        raise _check.problem(
            "the store holds no table of counts",
            found=f"elements {_check.listed(elements)}",
            cure="aggregate its points by cells first (spatialdata.aggregate), and write it again",
        )
    if len(names) > 1:
        raise _check.problem(
            "the store holds several tables",
            found=f"{len(names)}: {_check.listed(names)}",
            cure="name one with --table (table=)",
        )
    return names[0]


def _regions(sdata: Any, adata: AnnData, name: str) -> list[Region]:
    """The elements whose instances the table's rows are; none where the table says nothing of the kind."""
    notes = adata.uns.get("spatialdata_attrs")
    if not isinstance(notes, dict) or notes.get("region") is None:
        return []
    _stored.check_table(adata)
    region_key, instance_key = str(notes.get("region_key")), str(notes.get("instance_key"))
    for key in (region_key, instance_key):
        _check.require(adata.obs, key, f"obs of table {name!r}", "write the store again with a current spatialdata")
    of = adata.obs[region_key].astype(str).to_numpy()
    named = [str(r) for r in np.atleast_1d(np.asarray(notes["region"], dtype=object))]
    ids = adata.obs[instance_key].to_numpy()
    found = [_region(sdata, r, np.flatnonzero(of == r), ids, name) for r in named if (of == r).any()]
    left = sorted(set(of.tolist()) - set(named))
    if left:
        raise _check.problem(
            f"rows of table {name!r} belong to no region it names", found=_check.listed(left), cure="mend the table"
        )
    return found


def _region(sdata: Any, region: str, rows: NDArray[np.intp], ids: NDArray[Any], table: str) -> Region:
    element = next((part[region] for part in (sdata.shapes, sdata.labels) if region in part), None)
    if element is None:
        raise _check.problem(
            f"table {table!r} describes {region!r}, which the store does not hold",
            found=f"shapes and labels {_check.listed([*sdata.shapes, *sdata.labels])}",
            cure="copy the store again with that element",
        )
    names, xy = _elements.centroids(element)
    at = _elements.joined(ids[rows], names)
    if (at < 0).any():
        missing = ids[rows][at < 0]
        raise _check.problem(
            f"instances of table {table!r} are not in {region!r}",
            found=f"{len(missing)} of {len(rows)}, such as {_check.listed(missing, 3)}; {region!r} has"
            f" {_check.listed(names, 3)}",
            cure="keep what both have: spatialdata.match_element_to_table",
        )
    return Region(region, element, rows, at, xy[at], _elements.systems(element))


def _place(adata: AnnData, regions: list[Region]) -> str | None:
    """Set ``obsm["spatial"]`` where the table brings none that fits; the coordinate system it is in (None: the
    elements' own)."""
    common = set(regions[0].systems).intersection(*(r.systems for r in regions[1:]))
    first = _elements.preferred(regions[0].systems, common)
    if first is None and len(regions) > 1:
        names = [r.name for r in regions]
        _check.warn(
            f"{_check.listed(names)} share no coordinate system: their positions overlap; give batch_key=", adata
        )
    delivered = adata.obsm.get(_keys.SPATIAL)
    if delivered is not None:
        others = sorted(common - {first})
        given = np.asarray(delivered, dtype=np.float64)[:, :2]
        for system in dict.fromkeys([first, None, *others]):
            if _fits(given, _positions(regions, system, len(given))):
                return system
        _check.warn(
            f'obsm["spatial"] are not the positions of {_check.listed([r.name for r in regions])}: they are kept in'
            f" obsm[{_DELIVERED!r}], and the centres are used",
            adata,
        )
        adata.obsm[_DELIVERED] = delivered
        adata.obsm.pop(_keys.SPATIAL_UM, None)
    adata.obsm[_keys.SPATIAL] = _positions(regions, first, adata.n_obs)
    return first


def _positions(regions: list[Region], system: str | None, n: int) -> F64:
    xy = np.full((n, 2), np.nan)
    for region in regions:
        xy[region.rows] = _elements.moved(region.frame(system), region.xy)
    return xy


def _fits(given: F64, xy: F64) -> bool:
    from scipy.spatial import cKDTree

    if len(xy) < 2 or not np.isfinite(given).all():
        return False
    apart = float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))
    return bool(np.median(np.linalg.norm(given - xy, axis=1)) <= MAX_MISFIT * apart)


def _named_unit(path: Path, region: Region, system: str | None) -> float | None:
    """Micrometres per unit of a coordinate system, where the store names its unit."""
    kind = "shapes" if hasattr(region.element, "geometry") else "labels"
    attributes = _attributes(path / kind / region.name)
    attributes = attributes.get("ome", attributes)
    scales = attributes.get("multiscales") or [attributes]
    for entry in scales[0].get("coordinateTransformations", []):
        side = entry.get("output" if system is not None else "input", {})
        if system is not None and side.get("name") != system:
            continue
        units = {str(axis.get("unit", "")) for axis in side.get("axes", []) if axis.get("name") in ("x", "y")}
        if len(units) == 1:
            return _UNITS.get(units.pop().replace("metre", "meter"))
    return None


def _add_outlines(adata: AnnData, regions: list[Region], system: str | None) -> None:
    """Outlines of cells that are polygons, in micrometres."""
    um_per_unit = _adapt.metadata(adata)[_keys.META_UM_PER_UNIT]
    names, places = [], []
    for region in regions:
        if not hasattr(region.element, "geometry") or "radius" in region.element.columns:
            continue
        row, xy = _elements.outlines(region.element.iloc[region.at])
        names.append(np.asarray(adata.obs_names, dtype=str)[region.rows[row]])
        places.append(_elements.moved(region.frame(system), xy) * um_per_unit)
    if not names:
        _check.warn("the store has no outlines of the table's cells", adata)
        return
    _cells.add_outlines(adata, np.concatenate(names), np.concatenate(places))
    _section.check_xy(adata.uns[_keys.OUTLINES]["xy_um"])
