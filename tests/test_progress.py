"""Progress is drawn on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import io

import pytest

from smeld import _progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch) -> Terminal:
    """Put a terminal in place of standard error; within the test, for pytest sets it anew before each."""
    made = Terminal()
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    return made


def test_items_pass_through_without_a_terminal(capsys):
    assert list(_progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    caught = capsys.readouterr()
    assert caught.out == "" and caught.err == ""


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = on_terminal(monkeypatch)
    assert list(_progress.track((n for n in range(3)), "counting", total=3)) == [0, 1, 2]
    assert "counting" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_quiet_draws_nothing(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with _progress.silenced():
        assert not _progress.shown()
        assert list(_progress.track([1], "counting")) == [1]
        with _progress.silenced(False):  # quiet outside stays quiet
            assert not _progress.shown()
    assert terminal.getvalue() == "" and _progress.shown()


def test_set_quiet(monkeypatch):
    on_terminal(monkeypatch)
    _progress.set_quiet(True)
    try:
        assert not _progress.shown()
    finally:
        _progress.set_quiet(False)
    assert _progress.shown()


def test_an_error_in_the_loop_gets_out(monkeypatch):
    on_terminal(monkeypatch)
    with pytest.raises(RuntimeError, match="inside"):
        for _ in _progress.track([1, 2], "counting"):
            raise RuntimeError("inside")


def test_no_standard_error_at_all(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert list(_progress.track([1], "counting")) == [1]
