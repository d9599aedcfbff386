"""A viewer that runs, and a client that says byte for byte what it likes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import stored_section
from smeld.viewer import _server

TOKEN = "the-token-of-this-test"


def section(**options: Any) -> AnnData:
    """The small section of the plots' tests, with pairs, an order, an embedding and outlines beside it."""
    adata = stored_section.make(**options)
    rng = np.random.default_rng(7)
    n = adata.n_obs
    adata.uns["interactions"] = pd.DataFrame(
        {"ligand": ["g0", "g2"], "receptor": ["g1", "g3"], "effect": [0.5, np.nan], "qvalue": [0.01, 0.2]}
    )
    score = rng.random((n, 2)) * (rng.random((n, 2)) < 0.3)
    adata.obsm["interactions_score"] = sparse.csr_matrix(score)
    adata.obs["pseudotime"] = np.where(rng.random(n) < 0.1, np.nan, rng.random(n))
    adata.obsm["pseudotime_direction"] = rng.normal(size=(n, 2))
    adata.obsm["X_umap"] = rng.normal(size=(n, 2)).astype(np.float32)
    corners = np.array([[-5.0, -5.0], [5.0, -5.0], [0.0, 6.0]])
    adata.uns["cell_outlines"] = {
        "xy_um": (adata.obsm["spatial_um"][:, None, :] + corners).reshape(-1, 2).astype(np.float32),
        "start": np.arange(n + 1, dtype=np.int64) * 3,
    }
    return adata


@dataclass(frozen=True)
class Reply:
    """What came back: 0 is no answer at all."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return self.body.decode(errors="replace").strip()


class Client:
    """A client of one viewer, over plain sockets."""

    def __init__(self, viewer: _server.Viewer, server: Any) -> None:
        self.viewer = viewer
        self.server = server
        self.port = viewer.port
        self.host = f"127.0.0.1:{viewer.port}"

    def raw(self, sent: bytes, *, timeout: float = 10.0) -> Reply:
        """Send bytes, read until the answer is whole or the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as link:
            with suppress(OSError):  # an answer may come before all is sent
                link.sendall(sent)
            return read_reply(link)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str | None) -> Reply:
        """A good request of the page, with what ``headers`` puts in its place (None leaves a header out)."""
        good: dict[str, str | None] = {"host": self.host, "x-smeld-token": TOKEN, "connection": "close"}
        if method not in ("GET", "HEAD"):
            good |= {"origin": f"http://{self.host}", "sec-fetch-site": "same-origin"}
        if body is not None:
            good["content-length"] = str(len(body))
        good |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in good.items() if value is not None]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
        return self.raw(head.encode("latin-1") + (body or b""))

    def json(self, path: str) -> Any:
        reply = self.ask("GET", path)
        assert reply.status == 200, reply
        return json.loads(reply.body)


def read_reply(link: socket.socket) -> Reply:
    """An answer; status 0 where the connection ended without one."""
    got = b""
    try:
        while part := link.recv(1 << 16):
            got += part
    except (TimeoutError, ConnectionError):
        pass
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/1.") else 0
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return Reply(status, headers, body)


@contextmanager
def running(given: Any, **options: Any) -> Iterator[Client]:
    """A viewer of a result, ready; ended afterwards as Ctrl-C would."""
    viewer = _server.Viewer(given, _server.Options(token=TOKEN, **options))
    server = _server.serve(viewer)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [viewer.socket]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while viewer.answers is None and viewer.error is None and time.monotonic() < until:
            time.sleep(0.01)
        yield Client(viewer, server)
    finally:
        server.should_exit = True
        thread.join(20)
        viewer.close()
        assert not thread.is_alive()


def stub_page(folder: Path) -> Path:
    """A page that stands for ours."""
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>smeld</title>")
    (folder / "app.js").write_text("'use strict';")
    (folder / "big.js").write_text(" " * 12_000_000)
    (folder / "notes.txt").write_text("not for the page")
    return folder
