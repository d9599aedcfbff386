"""What a stored result holds, section by section: files are opened, and elements read, when they are asked for."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check, _keys
from smeld.viewer import _stored
from smeld.viewer._index import Genes

Say = Callable[[str], None]
Array = NDArray[Any]

#: between the subunits of a complex, as in ``smeld.lr``
JOIN = "+"
RESULT = "result.h5ad"
SUMMARY = "summary.csv"
#: columns of obs that may name the section of each spot, if nothing is recorded
BATCH_NAMES = ("section", "library_id", "sample", "batch")
#: platforms whose rows are spots, beads, bins or regions rather than cells
OF_SPOTS = ("visium", "visium_hd", "legacy_st", "slideseq", "curio", "dbit", "geomx", "stereoseq", "simulated")
#: sections of a cohort that are offered
MOST_SECTIONS = 200
#: micrometres beyond which a coordinate is none
FARTHEST_UM = 1e9


class File:
    """An h5ad file, or an AnnData in memory; opened on first use."""

    def __init__(self, path: Path | None, data: Any = None) -> None:
        self.path = path
        self._data = data
        self._lock = threading.Lock()
        self._root: Any = None
        self._matrix: Any = None
        self._genes: Genes | None = None

    @property
    def root(self) -> Any:
        """The group of all elements."""
        with self._lock:
            if self._root is None:
                self._open()
            return self._root

    @property
    def genes(self) -> Genes:
        """The table by gene."""
        root = self.root
        with self._lock:
            if self._genes is None:
                matrix = self._matrix if self._matrix is not None else _stored.at(root, "X")
                names = _stored.names(root["var"])
                self._genes = Genes(matrix, names, _complexes(root, names))
            return self._genes

    def _open(self) -> None:
        if self._data is None and self.path is not None and self.path.suffix == ".h5ad":
            root = _stored.open_file(self.path)
            if _stored.at(root, "obsm", _keys.SPATIAL_UM) is not None and _stored.is_frame(root["obs"]):
                self._root = root
                return
            root.close()  # of another package: read as any section is, which finds micrometres
        adata = self._data
        if adata is None:
            from smeld import io

            adata = io.read(self.path)  # type: ignore[arg-type]
        self._matrix = adata.X.tocsr() if getattr(adata.X, "format", "csr") not in ("csr", "csc") else adata.X
        parts = ("obs", "var", "obsm", "obsp", "uns")
        self._root = _stored.from_memory({part: _plain(getattr(adata, part)) for part in parts})

    @property
    def n_obs(self) -> int:
        """Rows of the table."""
        return _stored.length(self.root["obs"])

    def stop(self) -> None:
        """End the work in the background soon."""
        if self._genes is not None:
            self._genes.stop()

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            if self._genes is not None:
                self._genes.stop()
            if self._root is not None:
                self._root.close()
            self._root = None


def _complexes(root: Any, names: list[str]) -> dict[str, list[int]]:
    """Partners of tested pairs that are several genes of the table, and the numbers of these."""
    number = {name: i for i, name in enumerate(names)}
    found: dict[str, list[int]] = {}
    for key in (_keys.INTERACTIONS, _keys.CELLTYPE_INTERACTIONS):
        table = _stored.at(root, "uns", key)
        for column in () if table is None else {"ligand", "receptor"} & set(_stored.columns(table)):
            for name in sorted(set(_stored.words(table[column])) - set(number)):
                parts = name.split(JOIN)
                if len(parts) > 1 and all(part in number for part in parts):
                    found[name] = [number[part] for part in parts]
    return dict(sorted(found.items()))


def _plain(part: Any) -> Any:
    return _without_nul(part) if hasattr(part, "columns") else dict(part)


def _without_nul(frame: Any) -> Any:
    """The table, names and labels without NUL, which no file can hold."""

    def clean(name: Any) -> Any:
        return name.replace("\x00", "\ufffd") if isinstance(name, str) else name

    made = frame.rename(index=clean, columns=clean)
    for name in made.columns:
        column = made[name]
        if hasattr(column, "cat") and column.cat.categories.dtype.kind == "O":
            made[name] = column.cat.rename_categories({c: clean(c) for c in column.cat.categories})
    return made


@dataclass(frozen=True, eq=False)
class Section:
    """One section of a result: ``rows`` are its rows of the file's table, None for all of them."""

    name: str
    file: File
    number: int = 0
    batch: str | None = None

    @cached_property
    def rows(self) -> NDArray[np.int64] | None:
        """Rows of the file's table, None for all."""
        if self.batch is None:
            return None
        labels = _stored.column(self.file.root["obs"][self.batch])
        if isinstance(labels, _stored.Labels):
            return np.flatnonzero(labels.codes == labels.names.index(self.name))
        return np.flatnonzero(np.asarray([str(v) == self.name for v in labels]))

    def taken(self, values: Any) -> Any:
        """The section's part of values of the whole table."""
        if self.rows is None or values is None:
            return values
        if isinstance(values, _stored.Labels):
            return _stored.Labels(values.codes[self.rows], values.names)
        return values[self.rows]

    @property
    def n_obs(self) -> int:
        """Spots of the section."""
        return self.file.n_obs if self.rows is None else len(self.rows)

    @cached_property
    def xy_um(self) -> NDArray[np.float64]:
        """Positions, float64 [n_obs, 2] (x, y)."""
        stored = self.file.root["obsm"][_keys.SPATIAL_UM]
        xy = self.taken(np.asarray(stored[:, :2], dtype=np.float64))
        if not len(xy) or not (np.abs(xy) < FARTHEST_UM).all():
            raise _check.problem("positions must be finite", found="none, NaN or infinite ones", cure="read it again")
        return np.asarray(xy)

    @cached_property
    def bounds_um(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""
        low, high = self.xy_um.min(axis=0), self.xy_um.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def relative(self) -> NDArray[np.float32]:
        """Positions from the lowest x and y, float32 [n_obs, 2]."""
        return np.asarray(self.xy_um - np.asarray(self.bounds_um[:2]), dtype=np.float32)

    def gene(self, number: int) -> tuple[Array, Array]:
        """(rows of the section, values) of a gene where it is not 0."""
        rows, values = self.file.genes.column(number)
        if self.rows is None:
            return rows, values
        place = np.full(self.file.n_obs, -1, dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        here = place[rows]
        return here[here >= 0], values[here >= 0]

    def gene_values(self, number: int) -> NDArray[np.float32]:
        """Values of a gene, float32 [n_obs]."""
        rows, values = self.gene(number)
        out = np.zeros(self.n_obs, dtype=np.float32)
        out[rows] = values
        return out

    @cached_property
    def neighbours(self) -> Any:
        """Neighbours of every spot, CSR [n_obs, n_obs] of ones: those that are stored, else found from positions."""
        from scipy import sparse

        node = _stored.at(self.file.root, "obsp", _keys.CONNECTIVITIES)
        if node is None or _stored.encoding(node) != "csr_matrix":
            from smeld.kernels.graph import spatial_graph

            return sparse.csr_matrix(spatial_graph(self.xy_um).connectivities)
        parts = (node["data"][()], node["indices"][()], node["indptr"][()])
        whole = sparse.csr_matrix(parts, shape=tuple(node.attrs["shape"]))
        return whole if self.rows is None else sparse.csr_matrix(whole[self.rows][:, self.rows])

    @property
    def library(self) -> Any:
        """The section's entry of ``uns["spatial"]``, None without one."""
        entries = _stored.at(self.file.root, "uns", _keys.IMAGES)
        if entries is None:
            return None
        names = [name for name in entries if _stored.is_group(entries[name])]
        if self.name in names:
            return entries[self.name]
        return entries[names[0]] if names and self.batch is None else None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """smeld's own facts about the section."""
        return _stored.mapping(_stored.at(self.library, "metadata"))

    @property
    def unit(self) -> str:
        """What a row is: ``spot`` for platforms that count in places of several cells or of none, else ``cell``."""
        return "spot" if str(self.metadata.get(_keys.META_PLATFORM)) in OF_SPOTS else "cell"

    @cached_property
    def spot_um(self) -> float:
        """Diameter of a spot; where none is stored, what would cover the section about once."""
        stored = self.metadata.get(_keys.META_SPOT_UM)
        if isinstance(stored, int | float) and np.isfinite(stored) and stored > 0:
            return float(stored)
        x0, y0, x1, y1 = self.bounds_um
        return float(np.sqrt(max(x1 - x0, 1.0) * max(y1 - y0, 1.0) / self.n_obs)) * 0.8


@dataclass(frozen=True, eq=False)
class Result:
    """All sections of a result; ``folder`` and ``stem`` say where side files lie."""

    title: str
    sections: list[Section]

    @property
    def files(self) -> list[File]:
        """The files, each once."""
        return list(dict.fromkeys(section.file for section in self.sections))

    def close(self) -> None:
        """Let the files go."""
        for file in self.files:
            file.close()


def open_result(given: Any, *, say: Say = lambda message: None) -> Result:
    """Open a folder of ``smeld run`` (of one section or of many), an h5ad file, another section that ``sm.read`` knows,
    or an AnnData."""
    if not isinstance(given, str | Path):
        from smeld import _adapt

        return Result("AnnData", _divided(File(None, _adapt.table(given)), "section"))
    path = Path(given).expanduser()
    if not path.exists():
        raise _check.problem(f"{path.name} is missing", cure="give the folder of smeld run, or a result.h5ad")
    if path.is_dir() and (path / SUMMARY).is_file():
        return Result(path.name, _cohort(path))
    stored = path / RESULT if path.is_dir() and (path / RESULT).is_file() else path
    say(f"reading {stored.name}")
    file = File(stored)
    title = stored.resolve().parent.name if stored.name == RESULT else stored.stem
    sections = _divided(file, title)
    return Result(sections[0].name if len(sections) == 1 else title, sections)


def _cohort(folder: Path) -> list[Section]:
    """The finished samples of a cohort; a name that leads out of the folder is none."""
    with (folder / SUMMARY).open(encoding="utf-8-sig", newline="") as lines:
        names = [str(row.get("sample", "")) for row in csv.DictReader(lines)]
    home = folder.resolve()
    found: list[Section] = []
    for name in dict.fromkeys(names):
        path = (home / name / RESULT).resolve()
        if name and path.is_relative_to(home) and path.is_file():
            found.append(Section(name, File(path), len(found)))
    if not found:
        raise _check.problem(f"{folder.name} holds no finished sample", cure="run the sheet: smeld run samples.csv")
    return found[:MOST_SECTIONS]


def _divided(file: File, title: str) -> list[Section]:
    """The sections of a file: by the column that the domains were made with, or that names several libraries."""
    root = file.root
    libraries = _stored.at(root, "uns", _keys.IMAGES)
    names = [] if libraries is None else [n for n in libraries if _stored.is_group(libraries[n])]
    key = _batch_key(root, set(names))
    if key is not None:
        labels = _stored.shown_column(root["obs"], key)
        if isinstance(labels, _stored.Labels):
            used = np.unique(labels.codes[labels.codes >= 0])
            order = [labels.names[int(code)] for code in used][:MOST_SECTIONS]
            return [Section(name, file, k, key) for k, name in enumerate(order)]
    return [Section(names[0] if len(names) == 1 else title, file)]


def _batch_key(root: Any, libraries: set[str]) -> str | None:
    """The column of obs that names sections, None where there is but one."""
    record = _stored.at(root, "uns", _keys.RECORD, _keys.DOMAIN, "params", "batch_key")
    recorded = [] if record is None else [str(_stored.scalar(record))]
    known = _stored.columns(root["obs"])
    for name in [*recorded, *(BATCH_NAMES if len(libraries) > 1 else ())]:
        if name in known:
            labels = _stored.shown_column(root["obs"], name)
            used = _used(labels) if isinstance(labels, _stored.Labels) else set()
            if len(used) > 1 and (name in recorded or used <= libraries):
                return str(name)
    return None


def _used(labels: _stored.Labels) -> set[str]:
    """The labels that occur."""
    return {labels.names[int(code)] for code in np.unique(labels.codes) if code >= 0}
