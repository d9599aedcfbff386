"""Sample sheets: a table whose rows are samples, whose columns are settings; all that is wrong is said at once."""

from __future__ import annotations

import csv
import difflib
import io as text_io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smeld import _check, pipeline
from smeld._run_config import PATHS

SAMPLE, PATH, REGION = "sample", "path", "region_um"
SETTINGS = tuple(pipeline.RunConfig.model_fields)
SUMMARY, PAGE = "summary.csv", "summary.html"
#: a free column whose name is this much like a setting's is taken for a slip
ALIKE = 0.84
#: characters that some file system refuses in a name
NO_NAME = '/\\<>:"|?*'
LONGEST = 120
NOW = "now"


@dataclass(frozen=True)
class Sample:
    """A row of the sheet: its name, its configuration, and the columns that are no settings."""

    name: str
    config: pipeline.RunConfig
    notes: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """A row of the summary. ``ran``: now, or before (a finished sample is not done again); ``peak_mb`` 10^6 bytes."""

    sample: str
    state: str
    ran: str = NOW
    n_spots: int | None = None
    n_genes: int | None = None
    n_domains: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    error: str = ""


def is_sheet(path: Path) -> bool:
    """Whether it is a .csv or .tsv whose first line names a sample and a path: some platforms are .csv files, too."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        header = next(csv.reader([lines.readline(100_000)], delimiter=_delimiter(path)), [])
    return {SAMPLE, PATH} <= {name.strip().lower() for name in header}


def _delimiter(path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline(100_000)
    return ";" if ";" in first and "," not in first else ","


def read_sheet(path: Path, out: Path, settings: Mapping[str, Any]) -> list[Sample]:
    """The samples of a sheet. Everything that is wrong with it is found here, and said at once.

    Parameters
    ----------
    path
        A .csv (commas, or semicolons) or .tsv: ``sample``, ``path``, and any setting of the main job as a column, an
        empty cell standing for what ``settings`` has; other columns are kept as notes. Paths are relative to the sheet.
    out
        Folder of the results: no input may lie where a sample's results go.
    settings
        Settings of all samples that the sheet does not set.

    Raises
    ------
    InputError
        One line with all that is wrong.
    """
    header, rows = _table(path)
    wrong = _wrong_columns(header)
    if SAMPLE not in header or PATH not in header:
        raise _bad(path, wrong)
    samples = []
    for line, row in rows:
        if len(row) != len(header):
            wrong.append(f"line {line} has {len(row)} cells, the header {len(header)}")
            continue
        cells = dict(zip(header, row, strict=True))
        try:
            samples.append(_sample(cells, path.parent, settings))
        except _check.InputError as error:
            wrong.append(f"line {line}: {str(error).rstrip('.')}")
    wrong += _wrong_samples(samples, out)
    if not rows:
        wrong.append("it has no samples")
    if wrong:
        raise _bad(path, wrong)
    return samples


def _bad(path: Path, wrong: Sequence[str]) -> _check.InputError:
    return _check.problem(
        f"sample sheet {path.name} has {len(wrong)} fault{'s' * (len(wrong) != 1)}",
        found=" | ".join(wrong),
        cure="mend the sheet; nothing was run",
    )


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows with their line numbers; empty lines are passed over."""
    if not path.is_file():
        raise _check.problem(f"sample sheet {path} does not exist", cure="check the path")
    delimiter = _delimiter(path)
    try:
        reader = csv.reader(text_io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), delimiter=delimiter)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _check.problem(
            f"sample sheet {path.name} cannot be read", found=str(error), cure="save it as CSV, UTF-8"
        ) from error
    rows = [row for row in rows if any(row[1])]
    return (rows[0][1], rows[1:]) if rows else ([], [])


def _wrong_columns(header: Sequence[str]) -> list[str]:
    wrong = [f"column {name!r} is missing" for name in (SAMPLE, PATH) if name not in header]
    wrong += [f"column {name!r} is there twice" for name in sorted({n for n in header if header.count(n) > 1})]
    taken = {f.name for f in fields(Outcome)} - {SAMPLE}
    for name in header:
        if name in SETTINGS or name == SAMPLE:
            continue
        near = difflib.get_close_matches(name.lower(), SETTINGS, n=1, cutoff=ALIKE)
        if near:
            wrong.append(f"unknown setting {name!r}: did you mean {near[0]!r}?")
        elif not name or name in taken:
            wrong.append(f"column {name!r} cannot be kept: the summary has one of that name")
    return wrong


def _sample(cells: Mapping[str, str], beside: Path, settings: Mapping[str, Any]) -> Sample:
    name = cells[SAMPLE]
    _check_name(name)
    given: dict[str, Any] = {key: cells[key] for key in SETTINGS if cells.get(key)}
    if PATH not in given:
        raise _check.problem(f"sample {name!r} has no path", cure="fill it in")
    for key in (k for k in PATHS if k in given):
        given[key] = str(beside.absolute() / Path(given[key]).expanduser())
    if REGION in given:
        given[REGION] = tuple(given[REGION].replace(",", " ").replace(";", " ").split())
    config = pipeline.configure(**{**settings, **given})
    for key in ("path", "image", "image_alignment", "weights"):
        value = getattr(config, key)
        if value and not Path(value).exists():
            raise _check.problem(f"{key} of sample {name!r} does not exist", found=cells.get(key) or value)
    return Sample(name, config, {key: cells[key] for key in cells if key not in (*SETTINGS, SAMPLE)})


def _check_name(name: str) -> None:
    """A name becomes a folder's, on any system."""
    bad = not name or name.startswith(".") or name.endswith(".") or len(name.encode()) > LONGEST
    if bad or any(c in NO_NAME or not c.isprintable() for c in name) or name.lower() in (SUMMARY, PAGE):
        raise _check.problem(f"sample {name[:60]!r} cannot be a folder's name", cure="use letters and digits")


def _wrong_samples(samples: Sequence[Sample], out: Path) -> list[str]:
    """Names that are there twice (also where they differ in case only), and inputs that lie among the results."""
    names = [sample.name.casefold() for sample in samples]
    twice = sorted({n for n in names if names.count(n) > 1})
    wrong = [f"sample {name!r} is there {names.count(name)} times" for name in twice]
    folders = {(out / sample.name).resolve() for sample in samples}
    for sample in samples:
        for key in PATHS:
            value = getattr(sample.config, key)
            here = Path(value).resolve() if value else None
            if here is not None and folders & {here, *here.parents}:
                wrong.append(f"{key} of sample {sample.name!r} lies in the results of a sample")
    return wrong
