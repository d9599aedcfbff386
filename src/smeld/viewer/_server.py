"""The viewer's server: it answers at once, and reads the result in a thread of its own."""

from __future__ import annotations

import errno
import logging
import queue
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smeld import __version__, _check
from smeld.viewer import _guard, _wire

Say = Callable[[str], None]

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
#: seconds after which genes are turned over even if no column was asked for
INDEX_AFTER_S = 5.0
#: bytes of GeoJSON that are taken
MOST_IMPORT = 16 * 2**20


@dataclass(frozen=True)
class Options:
    """Settings of a viewer: ``annotate`` is the column that annotations go to, None for a viewer that only reads;
    ``author`` is written beside them."""

    port: int = 0
    token: str | None = None
    annotate: str | None = None
    author: str | None = None


class Viewer:
    """A result that is being shown: what is read of it so far, and its annotations."""

    def __init__(self, given: str | Path, options: Options, *, say: Say = lambda message: None) -> None:
        self.given = given
        self.options = options
        self.token = options.token or _guard.new_token()
        self.saying = "opening"
        self.error: str | None = None
        self.answers: Any = None
        self.books: Any = None
        if not Path(given).expanduser().exists():
            raise _check.problem(f"{Path(given).name} is missing", cure="give a result.h5ad, or its folder")
        self.title = Path(given).resolve().name
        self.say = say
        self._wanted: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked = threading.Event()
        self._closed = threading.Event()
        self.socket = _bound(options.port)
        self.port = int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Where the page is, token included."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    # -- reading ---------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Open the result; what goes wrong is said by the page."""
        try:
            from smeld.viewer._answers import Answers
            from smeld.viewer._source import open_result

            result = open_result(self.given, say=self._say)
            answers = Answers(result)
            self._say(f"reading {result.sections[0].name}")
            answers.views[0].described()
            self.title = result.title
            if self.options.annotate is not None:
                from smeld.viewer._annotations import Books

                self.books = Books(result, self.options.annotate, self.options.author)
            self.answers = answers
        except _check.InputError as error:
            self.error = str(error)
            self.say(f"error: {error}")
        except Exception as error:  # the page says it; the server goes on until it is ended
            logging.getLogger(__name__).exception("the result could not be opened")
            self.error = f"{type(error).__name__}: {error}"[:500]
        else:
            self._index()

    def _say(self, message: str) -> None:
        self.saying = message

    def _index(self) -> None:
        """Turn genes over, after the first picture; of several files those of which genes are looked at."""
        self._asked.wait(INDEX_AFTER_S)
        if len(self.answers.result.files) == 1:
            self._wanted.put(self.answers.result.files[0])
        while not self._closed.is_set():
            file = self._wanted.get()
            if file is not None and not self._closed.is_set():
                file.genes.build()

    def asked(self, address: str) -> None:
        """An address was answered: with a column the first picture can be drawn."""
        number, _, rest = address.partition("/")
        if rest.startswith("column/"):
            self._asked.set()
        elif rest.startswith("gene/") and len(self.answers.result.files) > 1:
            self._wanted.put(self.answers.views[int(number)].section.file)

    def close(self) -> None:
        """End reading, write what is annotated into the result, let files go."""
        self._closed.set()
        self._asked.set()
        self._wanted.put(None)
        if self.answers is not None:
            for file in self.answers.result.files:
                file.stop()
        self.socket.close()
        if self.books is not None:
            written, failed = self.books.close()
            for name in written:
                self.say(f"annotations written into {name}")
            if failed:
                raise _check.problem(
                    "annotations could not be written into the result",
                    found=_check.listed([f"{name}: {why}" for name, why in failed.items()], 3),
                    cure="mend that, then open it again with --annotate: they lie beside the result",
                )

    def state(self) -> dict[str, Any]:
        """``state.json``."""
        ready = self.answers is not None
        files = self.answers.result.files if ready else []
        return {
            "ready": ready,
            "saying": self.saying,
            "error": self.error,
            "version": __version__,
            "title": self.title,
            "annotate": self.options.annotate is not None,
            "sections": [view.section.name for view in self.answers.views] if ready else [],
            "apart": len(files) > 1,
            "indexed": files[0].genes.done if len(files) == 1 else float(ready),
        }


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # on Windows SO_REUSEADDR would let another program take the port, too
    made.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
    try:
        made.bind((HOST, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise _check.problem(
            f"port {port} cannot be used", found=str(error), cure="give another --port, or none for any that is free"
        ) from error
    made.listen(128)
    return made


# -- the application -----------------------------------------------------------------------------------------


def page_files() -> dict[str, Path]:
    """Scripts and styles by name: what is not in this list at the start does not exist."""
    return {p.name: p for p in sorted(PAGE.iterdir()) if p.suffix in MEDIA} if PAGE.is_dir() else {}


def application(viewer: Viewer) -> Any:
    """The ASGI application: the page, the data, annotations; nothing in it opens a path that a client named."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    files = page_files()

    def file(name: str) -> Response:
        path = files.get(name)
        if path is None:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(path.read_bytes(), media_type=MEDIA[path.suffix])

    def index(request: Any) -> Response:
        return file("index.html")

    def script(request: Any) -> Response:
        return file(request.path_params["name"])

    def state(request: Any) -> Response:
        return Response(_wire.to_json(viewer.state()), media_type="application/json")

    def data(request: Any) -> Response:
        if viewer.answers is None:
            return PlainTextResponse((viewer.error or "not ready yet") + "\n", 503)
        address = request.path_params["rest"]
        answer = viewer.answers.get(address)
        if answer is None:
            return PlainTextResponse("there is nothing of that kind\n", 404)
        viewer.asked(address)
        return Response(answer.body, media_type=answer.media)

    refused = {_check.InputError: _refused, OSError: _failing, 404: _missing, 405: _missing}
    routes = [
        Route("/", index, methods=["GET"]),
        Route("/page/{name}", script, methods=["GET"]),
        Route("/api/state.json", state, methods=["GET"]),
        *_writing(viewer),
        Route("/api/{rest:path}", data, methods=["GET"]),
    ]
    return _guard.Guard(
        Starlette(routes=routes, exception_handlers=refused),
        port=viewer.port,
        token=viewer.token,
    )


def _refused(request: Any, error: Exception) -> Any:
    """What is wrong with what was sent, in a line."""
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(str(error) + "\n", 400)


def _failing(request: Any, error: Exception) -> Any:
    """A disk that is full or fails: it is said what, without paths."""
    from starlette.responses import PlainTextResponse

    why = getattr(error, "strerror", None) or type(error).__name__
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return PlainTextResponse(f"the disk does not take or give it: {why}\n", 507 if full else 500)


def _missing(request: Any, error: Any) -> Any:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("there is nothing of that kind\n", error.status_code)


def _writing(viewer: Viewer) -> list[Any]:
    """Addresses of annotations; refused unless the viewer was started to annotate."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    def book(request: Any) -> Any:
        if viewer.options.annotate is None:
            return PlainTextResponse("this viewer only reads: start it with --annotate\n", 403)
        if viewer.books is None:
            return PlainTextResponse("not ready yet\n", 503)
        number = str(request.path_params["section"])
        if not (number.isdecimal() and len(number) < 9 and int(number) < len(viewer.books.sections)):
            return PlainTextResponse("there is no such section\n", 404)
        return viewer.books.sections[int(number)]

    def handler(act: Callable[[Any, bytes], tuple[int, bytes]], media: str, most: int = _guard.MOST_BODY) -> Any:
        async def handle(request: Any) -> Response:
            found = book(request)
            if isinstance(found, Response):
                return found
            body = await request.body()
            if len(body) > most:
                return PlainTextResponse(f"at most {most >> 20} MB are taken\n", 413)
            status, content = await run_in_threadpool(act, found, body)
            return Response(content, status, media_type=media)

        return handle

    json, geojson = "application/json", "application/geo+json"
    state = handler(lambda section, body: (200, section.state()), json)
    put = handler(lambda section, body: section.put(body), json)
    shapes = handler(lambda section, body: (200, section.geojson()), geojson)
    taken = handler(lambda section, body: section.imported(body), json, MOST_IMPORT)
    fold = handler(lambda section, body: section.fold(), json)
    start = "/api/{section}/annotations"
    return [
        Route(f"{start}.json", state, methods=["GET"]),
        Route(f"{start}.json", put, methods=["PUT"]),
        Route(f"{start}.geojson", shapes, methods=["GET"]),
        Route(f"{start}/import", taken, methods=["POST"]),
        Route("/api/{section}/fold", fold, methods=["POST"]),
    ]


# -- running -------------------------------------------------------------------------------------------------


def run(viewer: Viewer) -> None:
    """Serve until the process is told to end: Ctrl-C, SIGTERM, or a terminal that is closed; then write what is
    annotated into the result."""
    server = serve(viewer)
    _end_alike(server)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has ended
            server.run(sockets=[viewer.socket])
    finally:
        viewer.close()


def _end_alike(server: Any) -> None:
    """Let other ways to end a process end it as Ctrl-C does. uvicorn stops at SIGTERM, and then raises it again."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup is left its way
        signal.signal(hangup, lambda number, frame: setattr(server, "should_exit", True))


def serve(viewer: Viewer) -> Any:
    """A server that is ready to run; the result is read in a thread."""
    import uvicorn

    from smeld.viewer import _patience

    class Server(uvicorn.Server):  # type: ignore[misc,unused-ignore]
        """uvicorn's server, and a watch over its connections."""

        async def main_loop(self) -> None:
            import asyncio

            watch = asyncio.ensure_future(_patience.watch(self))
            try:
                await super().main_loop()
            finally:
                watch.cancel()

    # each refused request would be a line in the terminal
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    threading.Thread(target=viewer.read, name="smeld-read", daemon=True).start()
    config = uvicorn.Config(
        application(viewer),
        http=_patience.Patient,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_guard.MOST_HEADERS,
        timeout_keep_alive=int(_guard.IDLE_S),
        timeout_graceful_shutdown=3,
        limit_concurrency=2 * _guard.MOST_CONNECTIONS,
    )
    return Server(config)
