"""The commands: what they print, what they write, how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import _viewer_live
import anndata
import pytest
import typer
from typer.testing import CliRunner

import command_line
import smeld as sm
from smeld import _cli_view, io

pytest.importorskip("uvicorn", reason="needs smeld[viewer]")


@pytest.fixture
def result(tmp_path: Path) -> Path:
    io.write(_viewer_live.section(image=False), tmp_path / "result.h5ad")
    return tmp_path


def app() -> typer.Typer:
    made = typer.Typer()
    made.command("view")(_cli_view.view_command)
    made.command("export")(_cli_view.export_command)
    return made


def test_export_writes_the_page_and_says_where(result: Path) -> None:
    out = result / "page.html"
    done = CliRunner().invoke(app(), ["export", str(result), "--html", str(out), "--genes", "g0, g1", "--quiet"])
    assert done.exit_code == 0 and done.output == "", done.exception
    done = CliRunner().invoke(app(), ["export", str(result), "--html", str(out), "--top", "2"])
    assert done.exit_code == 0 and done.output.splitlines()[-1] == str(out.resolve())
    assert "Content-Security-Policy" in out.read_text()


def test_what_cannot_be_shown_is_said_at_once(tmp_path: Path, result: Path) -> None:
    done = CliRunner().invoke(app(), ["view", str(tmp_path / "nothing"), "--no-browser"])
    assert isinstance(done.exception, sm.InputError) and "missing" in str(done.exception)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app(), ["view", str(result), "--no-browser", "--port", port])
    assert isinstance(done.exception, sm.InputError) and f"port {port}" in str(done.exception)
    for port in ("99999", "-1"):
        done = CliRunner().invoke(app(), ["view", str(result), "--no-browser", "--port", port])
        assert done.exit_code != 0


def saved(port: int, token: str) -> _viewer_live.Reply:
    """The first cell is annotated, as soon as the result is read."""
    state = {"revision": 0, "categories": [{"name": "a", "color": "#0072B2"}], "shapes": []}
    body = json.dumps({**state, "cells": {"a": "AAAAAA=="}}).encode()
    head = f"PUT /api/0/annotations.json HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\norigin: http://127.0.0.1:{port}\r\n"
    head += f"x-smeld-token: {token}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    until = time.monotonic() + 30
    while True:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
            link.sendall(head.encode() + body)
            reply = _viewer_live.read_reply(link)
        if reply.status != 503 or time.monotonic() > until:
            return reply
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_view_prints_an_address_with_a_token_of_its_own_and_ends_whole(result: Path, how: str) -> None:
    """Ctrl-C, a system that ends it, a terminal that is closed: what was annotated is in the result."""
    if not hasattr(signal, how):
        pytest.skip("this system has no such signal")
    command = [sys.executable, "-m", "smeld.viewer", str(result), "--annotate", "--author", "Ada"]
    command = command_line.from_a_terminal(command)
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        printed = process.stdout.readline().decode()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([A-Za-z0-9_-]{43})\n", printed)
        assert found is not None
        try:
            reply = saved(int(found[1]), found[2])
            assert reply.status == 200, reply
            process.send_signal(getattr(signal, how))
            assert process.wait(60) == 0
        finally:
            process.kill()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert anndata.read_h5ad(result / "result.h5ad").obs["annotation"].iloc[0] == "a"


def test_a_result_that_could_not_be_opened_is_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says what is wrong with it for as long as the viewer runs; its end is no success."""
    from smeld.viewer import _server

    (tmp_path / "cut.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    monkeypatch.setattr(_server, "run", lambda viewer: viewer.read())
    with pytest.raises(typer.Exit) as ended:
        _cli_view.view_command(tmp_path / "cut.h5ad", browser=False, quiet=True)
    assert ended.value.exit_code == 2
