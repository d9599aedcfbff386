"""Requests that a viewer must refuse, over plain sockets against one that runs: it refuses each and goes on."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs smeld[viewer]")

import _viewer_live as live

from smeld import io
from smeld.viewer import _guard, _peer, _server

TOKEN = live.TOKEN
GOOD_STATE = {"revision": 0, "categories": [{"name": "a", "color": "#0072B2"}], "shapes": [], "cells": {}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Client]:
    folder = tmp_path_factory.mktemp("hostile")
    adata = live.section()
    io.write(adata, folder / "result.h5ad")
    (folder / "secret.txt").write_text("secret")
    patch = pytest.MonkeyPatch()
    patch.setattr(_server, "PAGE", live.stub_page(folder / "page"))
    patch.setattr(_guard, "HEADERS_S", 1.0)
    patch.setattr(_guard, "BODY_S", 1.0)
    patch.setattr(_guard, "STALLED_S", 1.0)
    try:
        with live.running(folder / "result.h5ad", annotate="annotation", author="me") as made:
            yield made
    finally:
        patch.undo()


def serves(client: live.Client) -> None:
    """The server is alive and answers the page."""
    assert client.json("/api/state.json")["ready"]
    assert client.ask("GET", "/api/0/xy.bin").body.startswith(b"SMELD")


STATE, PUT, IMPORT = "/api/state.json", "/api/0/annotations.json", "/api/0/annotations/import"
DATA = "/api/0/xy.bin"
BODY = json.dumps(GOOD_STATE).encode()

#: name: (method, path, body, headers that differ from a good request's, statuses)
REFUSED: dict[str, tuple[str, str, bytes | None, dict[str, str | None], tuple[int, ...]]] = {
    "rebinding": ("GET", STATE, None, {"host": "evil.example"}, (421,)),
    "rebinding with port": ("GET", DATA, None, {"host": "evil.example:{port}"}, (421,)),
    "rebinding the page": ("GET", "/", None, {"host": "evil.example:{port}"}, (421,)),
    "rebinding with the token in the address": ("GET", f"/?token={TOKEN}", None, {"host": "evil.example"}, (421,)),
    "another port": ("GET", STATE, None, {"host": "127.0.0.1:1"}, (421,)),
    "all interfaces": ("GET", STATE, None, {"host": "0.0.0.0:{port}"}, (421,)),
    "user in the host": ("GET", STATE, None, {"host": "x@127.0.0.1:{port}"}, (421,)),
    "suffix of the host": ("GET", STATE, None, {"host": "127.0.0.1:{port}.evil.example"}, (421,)),
    "no host": ("GET", STATE, None, {"host": None}, (400,)),
    "foreign origin reads": ("GET", DATA, None, {"origin": "http://evil.example"}, (403,)),
    "null origin reads": ("GET", DATA, None, {"origin": "null"}, (403,)),
    "foreign site reads": ("GET", DATA, None, {"sec-fetch-site": "cross-site"}, (403,)),
    "same site, another port reads": ("GET", DATA, None, {"sec-fetch-site": "same-site"}, (403,)),
    "foreign page takes a script": ("GET", "/page/app.js", None, {"sec-fetch-site": "cross-site"}, (403,)),
    "foreign origin writes": ("PUT", PUT, BODY, {"origin": "http://evil.example"}, (403,)),
    "null origin writes": ("PUT", PUT, BODY, {"origin": "null"}, (403,)),
    "no origin writes": ("PUT", PUT, BODY, {"origin": None}, (403,)),
    "https origin writes": ("PUT", PUT, BODY, {"origin": "https://127.0.0.1:{port}"}, (403,)),
    "origin with a path writes": ("PUT", PUT, BODY, {"origin": "http://127.0.0.1:{port}/"}, (403,)),
    "origin of the other name writes": ("PUT", PUT, BODY, {"origin": "http://localhost:{port}"}, (403,)),
    "origin that begins alike writes": ("PUT", PUT, BODY, {"origin": "http://127.0.0.1:{port}0"}, (403,)),
    "foreign site writes": ("PUT", PUT, BODY, {"sec-fetch-site": "cross-site"}, (403,)),
    "same site, another port writes": ("POST", IMPORT, b"{}", {"sec-fetch-site": "same-site"}, (403,)),
    "traversal": ("GET", "/page/../../../../etc/passwd", None, {}, (400,)),
    "traversal, escaped": ("GET", "/page/%2e%2e%2f%2e%2e%2fsecret.txt", None, {}, (400,)),
    "traversal, escaped twice": ("GET", "/page/%252e%252e/secret.txt", None, {}, (400,)),
    "traversal by backslashes": ("GET", "/page/..\\..\\secret.txt", None, {}, (400,)),
    "absolute path": ("GET", "//etc/passwd", None, {}, (400,)),
    "escaped NUL": ("GET", "/page/app.js%00.html", None, {}, (400,)),
    "not on the list": ("GET", "/page/notes.txt", None, {}, (404,)),
    "source of the server": ("GET", "/page/_server.py", None, {}, (400, 404)),
    "a file beside the result": ("GET", "/secret.txt", None, {}, (404,)),
    "another server's address": ("GET", "http://evil.example/api/state.json", None, {}, (400,)),
    "no such section": ("GET", "/api/9/xy.bin", None, {}, (404,)),
    "negative section": ("GET", "/api/-1/xy.bin", None, {}, (404,)),
    "a number of many digits": ("GET", f"/api/{'9' * 500}/gene/{'9' * 500}.bin", None, {}, (404,)),
    "a gene beyond the last": ("GET", "/api/0/gene/4000000000.bin", None, {}, (404,)),
    "a tile beyond the last": ("GET", "/api/0/tile/99/0_0.jpg", None, {}, (404,)),
    "a query where none is": ("GET", "/api/state.json?token=" + TOKEN, None, {}, (400,)),
    "an address of 3 kB": ("GET", "/page/" + "a" * 3000, None, {}, (414,)),
    "a query of 3 kB": ("GET", "/?token=" + "a" * 3000, None, {}, (414,)),
    "headers of 20 kB": ("GET", STATE, None, {"x-filler": "a" * 20_000}, (400, 431)),
    "a hundred headers": ("GET", STATE, None, {f"x-{i}": "a" for i in range(100)}, (431,)),
    "TRACE": ("TRACE", STATE, None, {}, (405,)),
    "OPTIONS": ("OPTIONS", PUT, None, {"access-control-request-method": "PUT"}, (405,)),
    "DELETE": ("DELETE", PUT, None, {}, (405,)),
    "a method of its own": ("SMELD", STATE, None, {}, (405,)),
    "CONNECT": ("CONNECT", "evil.example:443", None, {}, (400, 405)),
    "PUT where only GET is": ("PUT", STATE, b"{}", {}, (404, 405)),
    "a question with a body": ("GET", STATE, b"abc", {}, (400,)),
    "a socket": ("GET", STATE, None, {"upgrade": "websocket", "connection": "Upgrade"}, (400,)),
    "an oversized body": ("PUT", PUT, b"", {"content-length": str(2**31)}, (413,)),
    "an oversized import": ("POST", IMPORT, b" " * (_server.MOST_IMPORT + 1), {}, (413,)),
    "a negative length": ("PUT", PUT, b"", {"content-length": "-1"}, (400,)),
    "a length that is none": ("PUT", PUT, b"", {"content-length": "1e3"}, (400,)),
    "malformed JSON": ("PUT", PUT, b'{"revision": 0,', {}, (400,)),
    "JSON that is no object": ("PUT", PUT, b"[1, 2]", {}, (400,)),
    "JSON with NaN": ("PUT", PUT, b'{"revision": NaN}', {}, (400,)),
    "JSON of depth": ("PUT", PUT, b"[" * 1_000_000, {}, (400,)),
    "JSON not in UTF-8": ("PUT", PUT, b'{"revision": "\xff\xfe"}', {}, (400,)),
    "a number of 100,000 digits": ("PUT", PUT, b'{"revision": ' + b"9" * 100_000 + b"}", {}, (400,)),
    "an empty body": ("PUT", PUT, b"", {}, (400,)),
    "GeoJSON that is none": ("POST", IMPORT, b'{"type": "Point"}', {}, (400,)),
    "fold of no section": ("POST", "/api/7/fold", b"", {}, (404,)),
    "two tokens": ("GET", STATE, None, {"x-smeld-token": TOKEN + ", " + TOKEN}, (403,)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_valid_token(client: live.Client, name: str) -> None:
    method, path, body, changed, statuses = REFUSED[name]
    headers = {k.replace("-", "_"): v.replace("{port}", str(client.port)) if v else v for k, v in changed.items()}
    reply = client.ask(method, path, body, **headers)
    assert reply.status in statuses, reply
    assert len(reply.line.splitlines()) <= 1
    assert "Traceback" not in reply.line
    assert "access-control-allow-origin" not in reply.headers
    assert client.json(STATE)["ready"]


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_a_token(client: live.Client, name: str) -> None:
    method, path, body, changed, _ = REFUSED[name]
    headers = {k.replace("-", "_"): v.replace("{port}", str(client.port)) if v else v for k, v in changed.items()}
    headers |= {} if "token" in name else {"x_smeld_token": "guessed"}
    reply = client.ask(method, path, body, **headers)
    assert 400 <= reply.status < 500, reply
    assert b"SMELD" not in reply.body
    assert client.json(STATE)["ready"]


OPEN = ["/", STATE, DATA, "/page/app.js", "/api/0/section.json", "/api/0/annotations.json", "/api/0/genes.json"]


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"x_smeld_token": ""},
        {"x_smeld_token": TOKEN[:-1]},
        {"x_smeld_token": TOKEN.upper()},
        {"cookie": f"smeld-1={TOKEN}"},
        {"cookie": "smeld-{port}=no"},
        {"cookie": "smeld-{port}=no; smeld-{port}=" + TOKEN},
        {"authorization": f"Bearer {TOKEN}"},
    ],
    ids=str,
)
def test_nothing_is_open_without_the_token(client: live.Client, path: str, shown: dict[str, str]) -> None:
    headers: dict[str, str | None] = {"x_smeld_token": None}
    headers |= {k: v.replace("{port}", str(client.port)) for k, v in shown.items()}
    reply = client.ask("GET", path, **headers)
    assert reply.status == 403
    assert "token" in reply.line


def test_the_printed_address_sets_a_cookie_that_opens_the_page(client: live.Client) -> None:
    reply = client.ask("GET", f"/?token={TOKEN}&renderer=cpu", x_smeld_token=None, sec_fetch_site="none")
    assert reply.status == 303
    assert reply.headers["location"] == "/?renderer=cpu"
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Domain" not in cookie
    page = client.ask("GET", "/", x_smeld_token=None, cookie=cookie.split(";")[0])
    assert page.status == 200 and b"<title>smeld" in page.body
    assert client.ask("GET", "/?token=wrong", cookie=cookie.split(";")[0]).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_in_another_page_opens_the_viewer(client: live.Client, site: str) -> None:
    """The cookie would not go along with a redirection there: the page takes the step itself."""
    reply = client.ask("GET", f"/?token={TOKEN}&renderer=cpu", x_smeld_token=None, sec_fetch_site=site)
    assert reply.status == 200 and b'content="0;url=/?renderer=cpu"' in reply.body
    assert TOKEN not in reply.body.decode() and reply.headers["referrer-policy"] == "no-referrer"
    assert client.ask("GET", "/?token=x", x_smeld_token=None, sec_fetch_site=site).status == 403


def test_a_head_has_no_body(client: live.Client) -> None:
    for path in ("/", STATE, DATA, "/page/app.js"):
        reply = client.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert client.ask("HEAD", path, x_smeld_token=None).status == 403


def test_tokens_are_compared_in_constant_time() -> None:
    guard = _guard.Guard(None, port=1, token=TOKEN)  # type: ignore[arg-type]
    assert guard._is_token(TOKEN.encode()) and not guard._is_token(TOKEN.encode() + b"\xff")
    assert "compare_digest" in guard._is_token.__code__.co_names


def test_another_user_is_cut_off_though_the_token_is_right(
    client: live.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _peer.TABLES[0].is_file():
        pytest.skip("this system does not say whose a connection is")
    with monkeypatch.context() as patch:
        patch.setattr(_peer, "ANYWAY", ())
        patch.setattr(_peer.os, "getuid", lambda: 4_000_001)
        patch.setattr(_peer.os, "geteuid", lambda: 4_000_001)
        assert client.ask("GET", STATE).status == 0
    serves(client)


PEERS = {
    "mine": ("0100007F:D431 0100007F:1F90 01", 1000, False),
    "another's": ("0100007F:D431 0100007F:1F90 01", 1001, True),
    "root's": ("0100007F:D431 0100007F:1F90 01", 0, False),
    "closed already": ("0100007F:D431 0100007F:1F90 05", 0, True),
    "another's, as IPv6": (
        "0000000000000000FFFF00000100007F:D431 0000000000000000FFFF00000100007F:1F90 01",
        1001,
        True,
    ),
    "the server's end": ("0100007F:1F90 0100007F:D431 01", 1001, False),
    "another connection": ("0100007F:D432 0100007F:1F90 01", 1001, False),
}


@pytest.mark.parametrize("name", PEERS)
def test_whose_a_connection_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ends, uid, foreign = PEERS[name]
    table = tmp_path / "tcp"
    table.write_text(f"  sl  head\n   0: {ends} 00000000:00000000 00:00000000 00000000  {uid}        0 12345 1\n")
    monkeypatch.setattr(_peer, "TABLES", (tmp_path / "absent", table))
    monkeypatch.setattr(_peer.os, "getuid", lambda: 1000, raising=False)
    monkeypatch.setattr(_peer.os, "geteuid", lambda: 1000, raising=False)
    assert _peer.is_foreign(("127.0.0.1", 0xD431), ("127.0.0.1", 0x1F90)) is foreign


@pytest.mark.parametrize("path", ["/", "/page/app.js", STATE, DATA, "/nothing", f"/?token={TOKEN}", "/?token=x"])
def test_every_answer_has_safe_headers(client: live.Client, path: str) -> None:
    headers = client.ask("GET", path).headers
    for name, value in _guard.SAFE_HEADERS.items():
        assert headers[name] == value
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert not {"server", "access-control-allow-origin"} & set(headers)
    assert TOKEN not in headers.get("location", "")


def test_nothing_listens_beyond_this_machine(client: live.Client) -> None:
    assert client.viewer.socket.getsockname()[0] == "127.0.0.1"


# -- what is no proper HTTP, and who takes his time -------------------------------------------------------------

HEAD = "GET /api/state.json HTTP/1.1\r\nhost: {host}\r\nx-smeld-token: " + TOKEN + "\r\n"
WRITE = (
    "PUT /api/0/annotations.json HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nx-smeld-token: " + TOKEN + "\r\n"
)
RAW = {
    "rubbish": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "half a line": b"GET / HT\r\n\r\n",
    "a header without a name": HEAD.encode() + b": x\r\n\r\n",
    "a header with NUL": HEAD.encode() + b"x-a: a\x00b\r\n\r\n",
    "a folded header": HEAD.encode() + b"x-a: b\r\n c: d\r\nhost: evil\r\n\r\n",
    "two hosts": HEAD.encode() + b"host: evil.example\r\n\r\n",
    "two lengths": WRITE.encode() + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length and chunks": WRITE.encode() + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks that are none": WRITE.encode() + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "an unknown encoding": WRITE.encode() + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "endless headers": HEAD.encode() + b"x-a: " + b"a" * 200_000,
    "HTTP/1.0 without a host": f"GET /api/state.json HTTP/1.0\r\nx-smeld-token: {TOKEN}\r\n\r\n".encode(),
    "this server's own address as a whole": HEAD.replace("GET /", "GET http://{host}/").encode() + b"\r\n",
    "a fragment": HEAD.replace("state.json", "state.json#x").encode() + b"\r\n",
    "the same host twice": HEAD.encode() + b"host: {host}\r\n\r\n",
    "the token twice": HEAD.encode() + f"x-smeld-token: {TOKEN}\r\n\r\n".encode(),
    "the cookie twice": HEAD.replace("x-smeld-token: ", "cookie: smeld-{port}=").encode()
    + f"cookie: smeld-{{port}}={TOKEN}\r\n\r\n".encode(),
    "letters that are none in the address": HEAD.replace("state", "st\u00e4te").encode("latin-1") + b"\r\n",
    "letters of another script": HEAD.replace("/api", "/\uff0e\uff0e/api").encode() + b"\r\n",
    "a slash that is escaped": HEAD.replace("/state", "%2fstate").encode() + b"\r\n",
    "a slash in too many bytes": HEAD.replace("/state", "%c0%afstate").encode() + b"\r\n",
    "a tab in the address": HEAD.replace("/state", "/\tstate").encode() + b"\r\n",
    "null origin": WRITE.replace("origin: http://{host}", "origin: null").encode() + b"content-length: 2\r\n\r\n{}",
    "an empty origin": WRITE.replace("origin: http://{host}", "origin:").encode() + b"content-length: 2\r\n\r\n{}",
    "a form": WRITE.replace("origin: http://{host}\r\n", "").encode()
    + b"content-type: text/plain\r\ncontent-length: 2\r\n\r\n{}",
    "another method in a header": HEAD.replace("GET /api/state.json", "POST /api/0/annotations.json").encode()
    + b"x-http-method-override: PUT\r\nconnection: close\r\norigin: http://{host}\r\ncontent-length: 2\r\n\r\n{}",
    "headers after the chunks": WRITE.encode()
    + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\norigin: http://evil.example\r\n\r\n",
    "a chunk of a size beyond all": WRITE.encode() + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "two origins": WRITE.encode() + b"origin: http://evil.example\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/0.9": b"GET /api/state.json\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a smuggled second request": WRITE.encode()
    + b"content-length: 2\r\nconnection: close\r\n\r\n{}GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_proper_request(client: live.Client, name: str) -> None:
    sent = RAW[name].replace(b"{host}", client.host.encode()).replace(b"{port}", str(client.port).encode())
    reply = client.raw(sent, timeout=5)
    assert reply.status == 0 or 400 <= reply.status < 500 or reply.status == 501, reply
    serves(client)


def test_chunks_beyond_the_limit(client: live.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "MOST_BODY", 100_000)
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = WRITE.replace("{host}", client.host).encode() + b"transfer-encoding: chunked\r\n\r\n" + 4 * chunk
    assert client.raw(sent).status == 413
    serves(client)


SLOW = {
    "nothing": b"",
    "half the headers": HEAD.encode(),
    "half a body": WRITE.encode() + b"content-length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("name", SLOW)
def test_who_stops_sending_is_cut_off(client: live.Client, name: str) -> None:
    started = time.monotonic()
    reply = client.raw(SLOW[name].replace(b"{host}", client.host.encode()), timeout=10)
    assert reply.status in (0, 408)
    assert time.monotonic() - started < 8
    serves(client)


def test_a_drip_of_headers_is_cut_off(client: live.Client) -> None:
    """Progress in the headers does not buy more time."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as link:
        link.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # the connection ends, in one of several ways
            while time.monotonic() - started < 8:
                link.sendall(b"x: y\r\n")
                time.sleep(0.1)
    assert time.monotonic() - started < 5
    serves(client)


def test_who_does_not_read_is_cut_off(client: live.Client) -> None:
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        link.connect(("127.0.0.1", client.port))
        link.sendall((HEAD.replace("{host}", client.host).replace("api/state.json", "page/big.js") + "\r\n").encode())
        until = time.monotonic() + 8
        while client.server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not client.server.server_state.connections
        serves(client)


def test_many_silent_connections_do_not_shut_others_out(client: live.Client) -> None:
    links = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(_guard.MOST_CONNECTIONS + 40)]
    try:
        serves(client)
    finally:
        for link in links:
            link.close()
    serves(client)


def test_a_viewer_that_reads_takes_no_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_server, "PAGE", live.stub_page(tmp_path / "page"))
    io.write(live.section(image=False), tmp_path / "result.h5ad")
    before = (tmp_path / "result.h5ad").read_bytes()
    with live.running(tmp_path / "result.h5ad") as client:
        assert not client.json(STATE)["annotate"]
        asked = [("GET", PUT, None), ("PUT", PUT, BODY), ("POST", IMPORT, b"{}"), ("POST", "/api/0/fold", b"")]
        for method, path, body in asked:
            reply = client.ask(method, path, body)
            assert reply.status == 403 and "--annotate" in reply.line
    assert (tmp_path / "result.h5ad").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"result.h5ad", "page"}
