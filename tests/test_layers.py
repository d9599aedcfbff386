"""The layers of the package, read from its imports; and what no module may do.

kernels <- io, morph, fusion, nn, lr, datasets <- tl <- pl <- report, view, pipeline, cli. A module imports
what lies below it, never what lies above. The base (names that begin with ``_``) lies below all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import smeld

SRC = Path(smeld.__file__).resolve().parent

#: height of each part; a part may import parts that are lower
HEIGHT = {
    "_check": 0, "_keys": 0, "_registry": 0, "_image": 0, "_image_pixels": 0, "_image_tiff": 0,
    "_image_zarr": 0, "_progress": 0, "_palette": 0.5, "_inert": 0,
    "kernels": 1,
    "_backed": 1.4, "_adapt": 1.5,
    "nn": 2,
    "io": 3, "morph": 3, "fusion": 3, "lr": 3, "datasets": 3,
    "tl": 4,
    "pl": 5,
    "_report": 6, "_report_facts": 6, "_report_pairs": 6, "_report_trajectory": 6, "viewer": 6,
    "_report_sure": 6, "_report_types": 6, "_run_config": 6, "_run_record": 6,
    "_optional": 6,
    "pipeline": 7, "_estimate": 6.5, "_cluster": 6,
    "_followup": 8, "_followup_types": 8, "_cohort": 8, "_cohort_sheet": 8,
    "cli": 9, "_cli_base": 9, "_cli_encoders": 9, "_cli_followup": 9, "_cli_cohort": 9, "_cli_types": 9,
    "_cli_view": 9,
    "__main__": 10, "": 11,
}  # fmt: skip
#: parts of one height that belong together
TOGETHER = (
    {"_check", "_keys", "_registry", "_image", "_image_pixels", "_image_tiff", "_image_zarr", "_progress"},
    {"_report", "_report_facts", "_report_pairs", "_report_trajectory", "_report_sure", "_report_types"},
    {"_followup", "_followup_types"},
    {"cli", "_cli_base", "_cli_encoders", "_cli_followup", "_cli_cohort", "_cli_types", "_cli_view"},
    {"_cohort", "_cohort_sheet"},
)
#: what kernels may use: arrays and the mathematics on them
KERNEL_PACKAGES = {"numpy", "scipy", "numba", "sklearn", "skimage", "threadpoolctl", "PIL"}
#: only here may these be imported when a module is loaded
LAZY = {"torch": {"nn"}, "torch_geometric": {"nn"}, "matplotlib": {"pl"}, "spatialdata": {"_adapt"}}
#: packages that take long to import: inside functions only, wherever the facade's first names lead
SLOW = {"scanpy", "skimage", "sklearn", "transformers", "timm", "shapely", "pyarrow"}
#: files that may stay longer than the budget, with the reason
LONG: dict[str, str] = {}
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One import statement: ``module`` as a dotted name, where it stands."""

    module: str
    line: int
    top_level: bool
    typing_only: bool


def files() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def part(path: Path) -> str:
    """The part of the package a file belongs to; "" is the facade."""
    first = path.relative_to(SRC).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, top: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            check = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            for name in _names(child):
                yield Import(name, child.lineno, top, typing)  # type: ignore[attr-defined]
            yield from walk(child, top and not inside, typing or check)

    yield from walk(tree(path), True, False)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        # "from smeld import io" names a part; "from smeld import __version__" the facade's one value
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def own_part(module: str) -> str | None:
    """The part that a dotted name of smeld's points to, None for other packages."""
    names = module.split(".")
    if names[0] != "smeld":
        return None
    second = names[1] if len(names) > 1 else ""
    return "version" if second == "__version__" else second


def test_every_part_has_a_place() -> None:
    assert {part(path) for path in files()} <= set(HEIGHT)


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_nothing_imports_what_lies_above(path: Path) -> None:
    here = part(path)
    if here == "":
        pytest.skip("the facade stands above all")
    for found in imports(path):
        there = own_part(found.module)
        if there in (None, "version", here):
            continue
        assert there in HEIGHT, f"line {found.line}: smeld.{there} has no place in the layers"
        allowed = HEIGHT[there] < HEIGHT[here] or any({here, there} <= group for group in TOGETHER)
        # for type checkers only, a lower part may name a type of its own height
        allowed = allowed or (found.typing_only and HEIGHT[there] == HEIGHT[here])
        assert allowed, f"line {found.line}: {here} imports {there}"


@pytest.mark.parametrize("path", sorted((SRC / "kernels").glob("*.py")), ids=lambda p: p.relative_to(SRC).as_posix())
def test_kernels_know_arrays_only(path: Path) -> None:
    for found in imports(path):
        package = found.module.split(".")[0]
        if package == "smeld":
            assert own_part(found.module) in ("kernels", "_check"), f"line {found.line}: {found.module}"
        else:
            known = package in KERNEL_PACKAGES or package in sys.stdlib_module_names
            assert known, f"line {found.line}: kernels import {package}"


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_heavy_packages_are_imported_late(path: Path) -> None:
    for found in imports(path):
        package = found.module.split(".")[0]
        if not found.top_level or found.typing_only:
            continue
        if package in LAZY:
            assert part(path) in LAZY[package], f"line {found.line}: {package} at module level"
        assert package not in SLOW, f"line {found.line}: {package} at module level"
        assert package != "torch" or part(path) == "nn"


def test_torch_lives_in_nn() -> None:
    """Not inside functions either, save where a plug-in's own file needs it."""
    for path in files():
        if part(path) in ("nn", "morph", "fusion"):
            continue
        used = [f for f in imports(path) if f.module.split(".")[0] in ("torch", "torch_geometric")]
        assert not used, f"{path.name}: {used}"


def test_the_test_sees_imports() -> None:
    """The reading of imports itself: inside functions, for types, of parts and of values."""
    found = {i.module: i for i in imports(SRC / "io" / "_write.py")}
    assert found["smeld._check"].top_level
    assert found["anndata.AnnData"].typing_only
    assert not found["anndata"].top_level
    assert own_part("smeld.io._safe.replacing") == "io"
    assert own_part("smeld.__version__") == "version"
    assert own_part("numpy") is None


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(SRC).as_posix())
def test_what_no_module_does(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}: {name}"
            assert name != "print" or part(path) == "cli", f"line {node.lineno}: print"
            assert not name.endswith(("pickle.load", "pickle.loads", "joblib.load")), f"line {node.lineno}"
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("allow_pickle") != "True", f"line {node.lineno}: allow_pickle"
            assert keywords.get("shell") != "True", f"line {node.lineno}: shell=True"
    banned = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "urllib", "requests", "http"}
    used = {i.module.split(".")[0] for i in imports(path)} & banned
    assert not used


def test_files_stay_short() -> None:
    lines = {p.relative_to(SRC).as_posix(): len(p.read_text().splitlines()) for p in files()}
    too_long = {name: n for name, n in lines.items() if n > MAX_LINES and name not in LONG}
    assert not too_long
    assert set(LONG) <= set(lines), "an exception for a file that is gone"
