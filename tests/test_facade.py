"""``import smeld``: quick, light, and every public name is there; the README's lines run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import smeld as sm

#: none of these may be loaded by ``import smeld``; most of its time would go there
HEAVY = (
    "torch", "torchvision", "matplotlib", "spatialdata", "scanpy", "anndata", "pandas", "scipy", "sklearn",
    "skimage", "numba", "PIL", "h5py", "jinja2", "pydantic", "typer",
)  # fmt: skip
README = Path(__file__).resolve().parents[1] / "README.md"

MEASURE = """
import json, sys, time
start = time.perf_counter()
import smeld
seconds = time.perf_counter() - start
loaded = sorted(set(sys.modules) & set({heavy!r}))
print(json.dumps([seconds, loaded, sorted(m for m in sys.modules if m.startswith("smeld"))]))
"""


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    measured = [json.loads(fresh(MEASURE.format(heavy=HEAVY))) for _ in range(3)]
    seconds, loaded, own = min(measured)
    assert loaded == []
    assert own == ["smeld"]
    assert seconds < 1.0, "best of three"


def test_threads_that_wait_sleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would spin, and hold up whatever else runs on the same cores, smeld's own other processes included."""
    code = "import smeld, os; print(os.environ['OMP_WAIT_POLICY'])"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert fresh(code).strip() == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert fresh(code).strip() == "active"


@pytest.mark.parametrize("name", sm.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(sm, name) is not None
    assert name in dir(sm)


def test_each_name_comes_by_itself() -> None:
    """In the reverse of the order of the imports: none relies on another having been loaded."""
    names = list(reversed(sm.__all__))
    fresh(f"import smeld\nfor name in {names!r}: getattr(smeld, name)\nfrom smeld import *\nread, fuse, pl")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reed'"):
        _ = sm.reed
    assert not hasattr(sm, "torch")


def test_names_are_the_same_things_as_in_their_modules() -> None:
    import smeld._report
    import smeld.fusion
    import smeld.io

    assert sm.read is smeld.io.read
    assert sm.write is smeld.io.write
    assert sm.fuse is smeld.fusion.fuse
    assert sm.report is smeld._report.report
    assert issubclass(sm.InputError, ValueError)
    assert issubclass(sm.SmeldWarning, UserWarning)


def test_type_checkers_see_what_is_there() -> None:
    """Names that are loaded on first use are imported for type checkers too."""
    tree = ast.parse(Path(sm.__file__).read_text())
    blocks = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    seen = {a.asname or a.name for b in blocks for n in b.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == set(sm._LAZY)


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert sm.__version__ == version("smeld")


def _readme_blocks() -> list[str]:
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    return [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "import smeld" in b]


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Python block, on a small section in place of the path it names."""
    blocks = _readme_blocks()
    if not blocks:
        pytest.skip("the README has no Python block yet")
    section = tmp_path / "section.h5ad"
    sm.write(sm.datasets.simulate(300, 80, seed=0), section)
    code = re.sub(r"sm\.read\([^)]*\)", f"sm.read({str(section)!r})", blocks[0])
    code = re.sub(r"n_domains=\d+", "n_domains=3", code)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    assert list(tmp_path.rglob("*.html")), "it ends with a report"
