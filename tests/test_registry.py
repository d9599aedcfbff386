"""The registry: one decorator, found in its folder or by an entry point, never loaded before it is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from smeld import _registry
from smeld._check import InputError
from smeld._registry import Card, Registry

GROUP = "smeld_test.things"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``plugins_here`` with the registry ``things`` and one plug-in; forgotten afterwards."""
    package = tmp_path / "plugins_here"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"from smeld._registry import Registry\nthings = Registry('thing', 'plugins_here', '{GROUP}')\n"
    )
    _plugin(package, "first")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [m for m in sys.modules if m.startswith("plugins_here")]:
        del sys.modules[name]


def _plugin(package: Path, name: str, file: str | None = None) -> None:
    (package / f"{file or name}.py").write_text(
        "from plugins_here import things\n"
        f"@things.add('{name}', cite='{name} et al.')\n"
        f"def {name}(x):\n    '''The {name} thing.\n\n    More of it.'''\n    return x + 1\n"
    )


def _things() -> Registry[Any]:
    import plugins_here  # type: ignore[import-not-found]

    registry: Registry[Any] = plugins_here.things
    return registry


def test_a_plugin_is_one_file(folder: Path) -> None:
    _plugin(folder, "second")
    things = _things()
    assert isinstance(things, Mapping)
    assert list(things) == ["first", "second"]
    assert len(things) == 2
    assert "first" in things
    assert "third" not in things
    assert dict(things)["second"].facts["cite"] == "second et al."


def test_nothing_is_loaded_before_the_first_look(folder: Path) -> None:
    things = _things()
    assert "plugins_here.first" not in sys.modules
    assert "first" in things
    assert "plugins_here.first" in sys.modules


def test_files_that_begin_with_an_underscore_are_no_plugins(folder: Path) -> None:
    (folder / "_broken.py").write_text("raise RuntimeError\n")
    assert list(_things()) == ["first"]


def test_card(folder: Path) -> None:
    card = _things()["first"]
    assert isinstance(card, Card)
    assert card(1) == 2 == card.func(1)
    assert card.summary == "The first thing."
    with pytest.raises(TypeError):
        card.facts["cite"] = "other"  # type: ignore[index]
    with pytest.raises(AttributeError):
        card.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("asked", "near"), [("frist", "first"), ("FIRST", "first"), ("first ", "first")])
def test_did_you_mean(folder: Path, asked: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"unknown thing.*found: things first; cure: did you mean '{near}'"):
        _things()[asked]


def test_an_unlike_name_lists_all(folder: Path) -> None:
    _plugin(folder, "second")
    with pytest.raises(InputError, match="choose one of: first, second"):
        _things()["xyz"]


def test_a_failed_look_up_is_an_input_error_not_a_key_error(folder: Path) -> None:
    """So ``get`` of a mapping does not hide a misspelt name."""
    assert not issubclass(InputError, KeyError)
    with pytest.raises(InputError):
        _things().get("frist")


def test_two_functions_of_one_name_are_refused() -> None:
    things: Registry[Any] = Registry("thing", "json", GROUP)

    @things.add("one")
    def one(x: int) -> int:
        """One."""
        return x

    assert things.add("one", more=1)(one) is one, "the same function again, as on reload"
    with pytest.raises(ValueError, match="'one' is registered twice"):
        things.add("one")(lambda x: x)


class _Point:
    def __init__(self, package: Path, name: str) -> None:
        self.package, self.name = package, name

    def load(self) -> Any:
        things = _things()

        @things.add(self.name, cite="elsewhere")
        def thing(x: int) -> int:
            """A third party's thing."""
            return x

        return thing


def test_entry_points_add_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def points(*, group: str) -> list[_Point]:
        asked.append(group)
        return [_Point(folder, "theirs")]

    monkeypatch.setattr(_registry, "entry_points", points)
    things = _things()
    assert list(things) == ["first", "theirs"]
    assert "theirs" in things
    assert things["theirs"](3) == 3
    assert asked == [GROUP], "looked up once"


def test_the_groups_of_smeld_have_their_names() -> None:
    """What third parties write into their pyproject; a rename would break them."""
    import smeld as sm

    groups = {r.group: r.kind for r in (sm.io.platforms, sm.morph.encoders, sm.fusions)}
    assert groups == {
        "smeld.platforms": "platform",
        "smeld.encoders": "encoder",
        "smeld.fusions": "fusion method",
    }


def test_a_registry_stays_whole_when_loading_fails(folder: Path) -> None:
    """A plug-in that cannot be imported fails each time it is looked for, not once and then silently."""
    (folder / "broken.py").write_text("raise ImportError('no such library')\n")
    things = _things()
    for _ in range(2):
        with pytest.raises(ImportError, match="no such library"):
            list(things)
    (folder / "broken.py").unlink()
    sys.modules.pop("plugins_here.broken", None)
    assert list(things) == ["first"]
