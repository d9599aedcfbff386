"""How functions look: few positional parameters, typed, units in names, documented, errors from one place."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import smeld as sm
from smeld import _registry
from smeld.nn import available

SRC = Path(sm.__file__).resolve().parent
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
UNITS = ("_um", "_px", "_um2", "_mm")
#: words that make a parameter a length, an area or a position
LENGTHS = re.compile(r"(^|_)(radius|distance|diameter|tile|sigma|pitch|spacing|side|bandwidth|width|height|field)(_|$)")
#: raised as they are, for the reason given; everything else that a user meets is made by _check
RAISED = {
    "__init__.py": {"AttributeError": "what Python expects of a module's __getattr__"},
    "_cluster.py": {"RuntimeError": "what a worker met is no fault of the user's input"},
    "_registry.py": {"ValueError": "a plug-in's author, not a user, registers a name twice"},
    "_image_tiff.py": {"ValueError": "caught by _image, which makes the line for the user"},
    "_image_zarr.py": {"ValueError": "caught by _image, which makes the line for the user"},
    "io/_matrix10x.py": {"ValueError": "caught by _readable, which makes the line for the user"},
    "io/_delimited.py": {"ValueError": "caught by _readable, which makes the line for the user"},
    "io/_geojson.py": {"ValueError": "caught in the same file and made a line for the user"},
    "io/_xenium_zarr.py": {"ValueError": "caught by _opened, which makes the line for the user"},
    "io/_wide.py": {"ValueError": "caught by _cell_tables.readable, which makes the line for the user"},
    "io/_gem.py": {"ValueError": "caught by _cell_tables.readable, which makes the line for the user"},
    "io/stereoseq.py": {"ValueError": "caught in the same file and made a line for the user"},
    "io/_chunks.py": {"ValueError": "caught by its callers, which make the line for the user"},
    "io/codex.py": {"ValueError": "caught by _cell_tables.readable, which makes the line for the user"},
    "io/_wkb.py": {"ValueError": "caught by io/merscope, which makes the line for the user"},
    "io/merscope.py": {"ValueError": "caught by _cell_tables.readable, which makes the line for the user"},
    "io/starmap.py": {"ValueError": "caught by _cell_tables.readable, which makes the line for the user"},
    "io/_cell_tables.py": {"ValueError": "caught by readable, which makes the line for the user"},
    "io/_safe.py": {"OSError": "the disk fails: no fault of the input"},
    "io/_write.py": {"OSError": "the disk fails: no fault of the input"},
    "morph/_embed.py": {"RuntimeError": "a plug-in broke its contract: no fault of the input"},
}
#: functions whose random numbers are fixed on purpose
FIXED_DRAWS = {
    ("kernels/evidence.py", "left_out"),
    ("kernels/labelprior.py", "_field"),
    ("kernels/smooth.py", "effective_size"),  # probes of a trace
    ("kernels/whitening.py", "_probes"),  # of a trace, too
    ("pl/scatter.py", "embedding"),  # the order in which dots are drawn
}


def _members(module: Any, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield f"{prefix}.{name}", value


def _public() -> dict[str, Callable[..., Any]]:
    """Every function that a user calls, by the name under which it is called."""
    found: dict[str, Callable[..., Any]] = {
        name: value for name in sm.__all__ if inspect.isfunction(value := getattr(sm, name))
    }
    for part in ("tl", "pl", "morph", "datasets"):
        found |= dict(_members(getattr(sm, part), part))
    return found


PUBLIC = _public()
#: the steps of an analysis: these show an example that runs
STEPS = [name for name in PUBLIC if not name.startswith("pl.")]


def _registries() -> dict[str, _registry.Registry[Any]]:
    """Every registry of the package, by the folder of its plug-ins."""
    found: dict[str, _registry.Registry[Any]] = {}
    for info in pkgutil.iter_modules([str(SRC)], "smeld."):
        if info.ispkg:
            for value in vars(importlib.import_module(info.name)).values():
                if isinstance(value, _registry.Registry):
                    found[value.package.removeprefix("smeld.")] = value
    return found


REGISTRIES = _registries()
CARDS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry]
#: facts that a card of each kind must have
FACTS: dict[str, Mapping[str, Any]] = {
    "io": {"marks": tuple, "looks_for": str},
    "morph": {"license": str, "gated": bool, "um_per_px": (float, int, type(None)), "tile_px": (int, type(None)),
              "dim": (int, type(None))},
    "fusion": {"cite": str},
    "lr": {"cite": str},
}  # fmt: skip


def test_what_is_public() -> None:
    assert {"read", "write", "fuse", "report", "morph.embed", "datasets.simulate"} <= set(PUBLIC)
    assert {"tl.domains", "tl.markers", "tl.quality_control"} <= set(PUBLIC)
    assert {"io", "morph", "fusion"} <= set(REGISTRIES)


@pytest.mark.parametrize("name", PUBLIC)
def test_at_most_three_positional_parameters_all_typed(name: str) -> None:
    signature = inspect.signature(PUBLIC[name])
    positional = [p for p in signature.parameters.values() if p.kind in POSITIONAL]
    assert len(positional) <= 3
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
        assert parameter.kind is not inspect.Parameter.VAR_POSITIONAL, parameter.name
        assert not isinstance(parameter.default, list | dict | set), f"{parameter.name}: mutable default"
    assert "AnnData | None" not in str(signature.return_annotation)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name: str) -> None:
    doc = inspect.getdoc(PUBLIC[name]) or ""
    first, _, rest = doc.partition("\n")
    assert first.endswith("."), "the first line is a sentence"
    assert first[0].isupper() or first[0] == "`"
    assert rest.startswith("\n") or not rest, "an empty line follows it"
    elsewhere = re.search(r"Parameters are those of :func:`(\w+)`", doc)
    if elsewhere:
        doc += inspect.getdoc(PUBLIC[f"{name.partition('.')[0]}.{elsewhere[1]}"]) or ""
    for parameter in inspect.signature(PUBLIC[name]).parameters:
        known = name.startswith("pl.") and parameter == "adata"
        assert known or re.search(rf"\b{parameter}\b", doc), f"{parameter} is not explained"


@pytest.mark.parametrize("name", STEPS)
def test_steps_show_an_example(name: str) -> None:
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert "Examples\n--------" in doc
    assert ">>> " in doc


@pytest.mark.parametrize("name", PUBLIC)
def test_lengths_have_a_unit(name: str) -> None:
    for parameter in inspect.signature(PUBLIC[name]).parameters:
        if LENGTHS.search(parameter):
            assert parameter.endswith(UNITS), parameter


def test_command_line_lengths_have_a_unit() -> None:
    from smeld.pipeline import RunConfig

    for field in RunConfig.model_fields:
        assert field.endswith(UNITS) or not LENGTHS.search(field), field


@pytest.mark.parametrize("name", ["fuse", "tl.domains", "datasets.simulate"])
def test_what_is_random_takes_a_seed(name: str) -> None:
    seed = inspect.signature(PUBLIC[name]).parameters["seed"]
    assert seed.kind is inspect.Parameter.KEYWORD_ONLY
    assert seed.default == 0


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.startswith("pl.")])
def test_plots_take_axes(name: str) -> None:
    """Data and ``ax`` in, ``Axes`` out; the rest of ``sm.pl`` are tools without data."""
    parameters = list(inspect.signature(PUBLIC[name]).parameters)
    if parameters[:1] == ["adata"]:
        assert {"ax", "axes"} & set(parameters)


# -- plug-ins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), CARDS)
def test_cards(kind: str, name: str) -> None:
    card = REGISTRIES[kind][name]
    assert card.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name), "a name one can type"
    assert card.summary.rstrip().endswith((".", ",", ";", "not")) or "." in (card.func.__doc__ or "")
    assert len(card.summary) > 20, "a docstring whose first line says what it is"
    assert kind in FACTS, "say here which facts its cards must have"
    for fact, kinds in FACTS[kind].items():
        assert fact in card.facts, fact
        assert isinstance(card.facts[fact], kinds), fact


@pytest.mark.parametrize("name", REGISTRIES["fusion"])
def test_fusion_methods_are_called_alike(name: str) -> None:
    parameters = inspect.signature(REGISTRIES["fusion"][name].func).parameters
    assert list(parameters)[:3] == ["counts", "morphology", "graph"]
    assert {"batch", "seed"} <= set(parameters)
    keyword = [p for p in list(parameters.values())[3:] if p.kind is not inspect.Parameter.VAR_KEYWORD]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in keyword)
    assert all(p.default is not inspect.Parameter.empty for p in keyword if p.name != "batch")


@pytest.mark.parametrize("name", REGISTRIES["io"])
def test_readers_are_called_alike(name: str) -> None:
    assert list(inspect.signature(REGISTRIES["io"][name].func).parameters) == ["path", "options"]


# -- the source ----------------------------------------------------------------------------------------------


def _files() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def _functions(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node


@pytest.mark.parametrize("path", _files(), ids=_name)
def test_errors_are_made_in_one_place(path: Path) -> None:
    """Kernels raise ValueError, which their callers turn into a line for the user."""
    allowed = set(RAISED.get(_name(path), {})) | ({"ValueError"} if "kernels" in path.parts else set())
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: user errors are raised, not asserted"
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            raised = node.exc.func.id
            if hasattr(builtins, raised):
                assert raised in allowed, f"line {node.lineno}: raise {raised}"
            assert raised != "InputError" or path.name == "_check.py", f"line {node.lineno}: use _check.problem"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            assert path.name == "_check.py", f"line {node.lineno}: use _check.warn"


def test_the_exceptions_are_still_needed() -> None:
    for name, kinds in RAISED.items():
        text = (SRC / name).read_text()
        assert all(f"raise {kind}(" in text for kind in kinds), name


@pytest.mark.parametrize("path", _files(), ids=_name)
def test_errors_say_what_to_do(path: Path) -> None:
    """``_check.problem`` is called with a cure wherever one is known: at least with something found."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_check.problem"):
            keywords = {k.arg for k in node.keywords}
            handed_on = isinstance(node.args[0], ast.Call)  # a kernel's message, which says it all
            assert handed_on or keywords & {"found", "cure"}, f"line {node.lineno}: neither found nor cure"


@pytest.mark.parametrize("path", _files(), ids=_name)
def test_randomness_has_a_seed(path: Path) -> None:
    for function, node in _functions(ast.parse(path.read_text())):
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            called = ast.unparse(call.func)
            if not called.startswith(("np.random.", "random.")) or "(" in called:
                continue
            assert called.split(".")[-1] in ("default_rng", "SeedSequence", "Generator", "Philox", "PCG64"), called
            assert call.args or call.keywords, f"line {call.lineno}: no seed"
            literal = all(isinstance(a, ast.Constant) for a in call.args)
            assert not literal or (_name(path), function) in FIXED_DRAWS, f"line {call.lineno}: a fixed seed"


def test_results_are_frozen() -> None:
    """Every dataclass of the package, but those that hold a cache."""
    for info in pkgutil.walk_packages([str(SRC)], "smeld."):
        if info.name.endswith("__main__") or (info.name.startswith("smeld.nn._") and not available()):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if dataclasses.is_dataclass(value) and isinstance(value, type) and value.__module__ == info.name:
                assert value.__dataclass_params__.frozen, f"{info.name}.{value.__name__}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", _files(), ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    if path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", _files(), ids=_name)
def test_broad_excepts_are_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ExceptHandler):
            kind = "" if node.type is None else ast.unparse(node.type)
            if kind in ("", "Exception", "BaseException"):
                says = "#" in lines[node.lineno - 1] or any(isinstance(n, ast.Raise) for n in ast.walk(node))
                assert kind and says, f"line {node.lineno}: except {kind}"


#: modules with examples that run, found by their prompt
WITH_EXAMPLES = [p for p in _files() if ">>> " in p.read_text()]


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=_name)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example in a docstring, but those marked as needing data (``+SKIP``)."""
    import doctest

    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    parts = _name(path).removesuffix(".py").removesuffix("__init__").strip("/").split("/")
    module = importlib.import_module(".".join(["smeld", *(p for p in parts if p)]))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0
