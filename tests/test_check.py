"""Messages: one printable line with what is missing, what was found and the cure; warnings that are kept."""

from __future__ import annotations

import string
import warnings

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeld import _check, _keys
from smeld._check import InputError, SmeldWarning

NAMES = st.lists(st.text(string.ascii_letters, min_size=1, max_size=6), max_size=30)


def test_the_three_parts_in_order() -> None:
    error = _check.problem("no matrix.", found="spatial/.", cure="copy it.")
    assert isinstance(error, InputError)
    assert str(error) == "no matrix; found: spatial/; cure: copy it."
    assert str(_check.problem("no matrix")) == "no matrix."


@given(st.text(), st.text(), st.text())
def test_any_content_stays_one_printable_line(missing: str, found: str, cure: str) -> None:
    """Names of genes and files come from outside: no line break, no terminal sequence gets through."""
    text = str(_check.problem(missing, found=found, cure=cure))
    assert text.isprintable()
    assert len(text.splitlines()) == 1


@given(NAMES, st.integers(1, 12))
def test_listed_names_all_or_counts_the_rest(names: list[str], most: int) -> None:
    text = _check.listed(names, most)
    if not names:
        assert text == "nothing"
    elif len(names) <= most:
        assert text == ", ".join(names)
    else:
        assert text == ", ".join(names[:most]) + f" and {len(names) - most} more"


def test_listed_takes_what_is_no_list() -> None:
    assert _check.listed(dict.fromkeys([1, 2.5])) == "1, 2.5"
    assert _check.listed(n for n in "ab") == "a, b"
    assert _check.listed("x" for _ in range(40)).endswith("and 28 more")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("textur", "did you mean 'texture'?"),
        ("TEXTURE", "did you mean 'texture'?"),
        ("sMe", "did you mean 'SME'?"),
        ("zzz", "choose one of: SME, texture"),
        ("", "choose one of: SME, texture"),
    ],
)
def test_unknown(name: str, said: str) -> None:
    text = str(_check.unknown("encoder", name, ["texture", "SME"]))
    assert text.startswith(f"unknown encoder {name!r}; found: encoders SME, texture; cure: {said}".rstrip("."))


def test_unknown_takes_anything() -> None:
    assert "unknown graph 'None'" in str(_check.unknown("graph", None, ["knn"]))
    assert len(str(_check.unknown("graph", "x" * 10_000, ["knn"]))) < 300
    assert "choose one of: nothing" in str(_check.unknown("graph", "x", []))


def test_require() -> None:
    _check.require({"a": 1}, "a", "obs", "add it")
    with pytest.raises(InputError, match=r"obs\['b'\] is missing; found: obs has a; cure: add it"):
        _check.require({"a": 1}, "b", "obs", "add it")
    with pytest.raises(InputError, match="obsm has nothing"):
        _check.require([], "b", "obsm", "add it")


def _small() -> anndata.AnnData:
    return anndata.AnnData(np.ones((3, 2), dtype=np.float32))


def test_warnings_are_kept_once_and_in_order(tmp_path) -> None:
    adata = _small()
    for message in ("one", "two", "one"):
        with pytest.warns(SmeldWarning, match=message):
            _check.warn(message, adata)
    assert _keys.kept_warnings(adata) == ["one", "two"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert _keys.kept_warnings(again) == ["one", "two"]
    with pytest.warns(SmeldWarning):
        _check.warn("three", again)
    assert _keys.kept_warnings(again) == ["one", "two", "three"]
    assert _keys.kept_warnings(_small()) == []


def test_a_warning_made_an_error_is_kept_too() -> None:
    """Under ``-W error`` the call fails; what it had to say is not lost for the report of a retry."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SmeldWarning, match="one"):
            _check.warn("one")


def test_a_warning_points_at_the_caller() -> None:
    def public() -> None:
        helper()

    def helper() -> None:
        _check.warn("here")

    with pytest.warns(SmeldWarning) as caught:
        public()
    assert caught[0].filename == __file__


class TestRecord:
    def test_what_is_written(self) -> None:
        adata = _small()
        _keys.record(adata, "k", function="f", params={"a": None, "b": (1, 2), "c": {"d": 1.5}}, seed=3)
        kept = adata.uns["smeld"]["k"]
        assert kept["function"] == "f"
        assert kept["seed"] == 3
        assert kept["params"]["a"] == "none"
        assert list(kept["params"]["b"]) == ["1", "2"]
        assert kept["params"]["c"] == {"d": 1.5}
        assert kept["inputs"] == {}

    @given(
        st.dictionaries(
            st.text(string.ascii_lowercase, min_size=1, max_size=5),
            st.one_of(
                st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text("ab\u00e9 ", max_size=5),
                st.lists(st.integers(), max_size=3), st.tuples(st.floats()), st.sets(st.text("ab", max_size=2)),
                st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.none()),
            ),
            max_size=6,
        )
    )  # fmt: skip
    def test_any_parameters_can_be_stored(self, tmp_path_factory, params) -> None:
        adata = _small()
        _keys.record(adata, "k", function="f", params=params)
        path = tmp_path_factory.mktemp("r") / "a.h5ad"
        adata.write_h5ad(path)
        again = anndata.read_h5ad(path).uns["smeld"]["k"]["params"]
        assert set(again) == set(params)
        for name, value in params.items():
            if isinstance(value, bool | int | str):
                assert again[name] == value
            if isinstance(value, float):
                assert again[name] == value or np.isnan(value)

    def test_a_second_record_replaces_the_first_only(self) -> None:
        adata = _small()
        _keys.keep_warning(adata, "w")
        for seed in (1, 2):
            _keys.record(adata, "k", function="f", params={}, seed=seed)
        assert adata.uns["smeld"]["k"]["seed"] == 2
        assert _keys.kept_warnings(adata) == ["w"]
