"""Headless Chromium driven over its debugging pipe: what a user does to a page, and what the page did.

Standard library alone. Messages are JSON with a NUL byte after each; the browser reads file descriptor 3 and
writes 4. One thread: events are taken in while an answer is waited for.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: of every browser in these tests, the report's as well
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
FLAGS = (
    *QUIET,
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # whatever asks, nothing leaves this machine
    "--remote-debugging-pipe",
)
ALT, CTRL, META, SHIFT = 1, 2, 4, 8
#: becomes the browser, with the ends of the two pipes under the numbers that it expects
_AS_THREE_AND_FOUR = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
#: names of keys that are not letters -> (code, number)
KEYS = {
    "Enter": ("Enter", 13), "Escape": ("Escape", 27), "Tab": ("Tab", 9), " ": ("Space", 32),
    "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38), "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40), "Home": ("Home", 36), "End": ("End", 35), "Delete": ("Delete", 46),
    "Backspace": ("Backspace", 8),
}  # fmt: skip


class PageError(AssertionError):
    """The page threw, or did not become what was waited for."""


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Browser:
    """A running browser with its own profile in ``folder``; a context manager."""

    def __init__(self, folder: Path, *, flags: Iterable[str] = (), binary: str | None = None) -> None:
        found = binary or find_browser()
        if found is None:
            raise FileNotFoundError(f"no browser is installed ({', '.join(BROWSERS)})")
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        command = [found, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _AS_THREE_AND_FOUR, str(theirs_in), str(theirs_out), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._sinks: dict[str, Callable[[str, dict[str, Any]], None]] = {}

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser that was started here."""
        try:
            self.call("Browser.close", timeout=5)
            self.process.wait(timeout=10)
        except (OSError, PageError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, session: str = "", timeout: float = 60, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile go to their pages."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        self.pump(lambda: number in self._answers, timeout, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error'].get('message')}")
        return dict(answer.get("result", {}))

    def tell(self, method: str, session: str, **params: Any) -> None:
        """Send a command whose answer nobody waits for."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, "sessionId": session}
        self._send(json.dumps(message).encode() + b"\0")

    def pump(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        """Take in messages until ``done()``."""
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise PageError(f"{what}: nothing for {timeout:.0f} s")
            block = os.read(self._read, 1 << 20)
            if not block:
                raise PageError(f"{what}: the browser has ended")
            *whole, self._rest = (self._rest + block).split(b"\0")
            for text in whole:
                self._take(json.loads(text))

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data) :]

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
        elif sink := self._sinks.get(message.get("sessionId", "")):
            sink(message["method"], message.get("params", {}))

    def page(self, url: str = "about:blank", *, width: int = 1400, height: int = 900) -> Page:
        """A new page of the given size in CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        self._sinks[session] = page.event
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        page.size(width, height)
        if url != "about:blank":
            page.goto(url)
        return page


class Page:
    """One page: ``console`` holds its errors, ``requests`` the addresses it asked for, workers' included."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.console: list[str] = []
        self.requests: list[str] = []
        self._loaded = 0

    def call(self, method: str, timeout: float = 60, **params: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.browser.call(method, self.session, timeout, **params)

    def event(self, method: str, params: dict[str, Any]) -> None:
        """What the browser says of this page."""
        if method == "Runtime.exceptionThrown":
            facts = params["exceptionDetails"]
            self.console.append(facts.get("exception", {}).get("description") or facts.get("text", ""))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert", "warning"):
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded += 1
        elif method == "Target.attachedToTarget":
            child = params["sessionId"]
            self.browser._sinks[child] = self.event
            for domain in ("Runtime", "Log", "Network"):
                self.browser.tell(f"{domain}.enable", child)

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        before = self._loaded
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        self.browser.pump(lambda: self._loaded > before, 60, f"opening {url}")

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """The window's size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def media(self, **features: str) -> None:
        """Preferences of the user: ``prefers_color_scheme="dark"``."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def evaluate(self, expression: str, timeout: float = 60) -> Any:
        """The value of an expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", timeout, expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            facts = answer["exceptionDetails"]
            raise PageError(facts.get("exception", {}).get("description") or facts.get("text"))
        return answer["result"].get("value")

    def wait(self, condition: str, timeout: float = 20) -> Any:
        """Until an expression is true in the page."""
        loop = f"""new Promise((done, fail) => {{ const end = performance.now() + {timeout * 1000};
          const look = () => {{ let v; try {{ v = ({condition}); }} catch (e) {{ v = false; }}
            if (v) done(v); else if (performance.now() > end) fail(new Error("waited for " + {json.dumps(condition)}));
            else setTimeout(look, 15); }}; look(); }})"""
        return self.evaluate(loop, timeout + 10)

    def where(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        if box is None:
            raise PageError(f"no element {selector}")
        return float(box[0]), float(box[1])

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse: pressed, moved, released."""
        held = {"button": "left", "buttons": 1, "clickCount": 1} if kind != "moved" else {}
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind.title()}", x=x, y=y, **{**held, **more})

    def click(self, selector: str, modifiers: int = 0) -> None:
        """Click the middle of an element."""
        x, y = self.where(selector)
        self.mouse("moved", x, y)
        self.mouse("pressed", x, y, modifiers=modifiers)
        self.mouse("released", x, y, modifiers=modifiers)

    def click_at(self, x: float, y: float, count: int = 1) -> None:
        """Click a place of the window."""
        self.mouse("moved", x, y)
        for n in range(1, count + 1):
            self.mouse("pressed", x, y, clickCount=n)
            self.mouse("released", x, y, clickCount=n)

    def drag(self, places: list[tuple[float, float]], modifiers: int = 0) -> None:
        """Press at the first place, move through the others, let go at the last."""
        self.mouse("moved", *places[0])
        self.mouse("pressed", *places[0], modifiers=modifiers)
        for x, y in places[1:]:
            self.mouse("moved", x, y, button="left", buttons=1, modifiers=modifiers)
        self.mouse("released", *places[-1], modifiers=modifiers)

    def key(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go."""
        code, number = KEYS.get(key, ("", ord(key.upper()) if len(key) == 1 else 0))
        plain = not modifiers & (CTRL | META | ALT)
        text = {"text": "\r" if key == "Enter" else key} if plain and (len(key) == 1 or key == "Enter") else {}
        facts = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> Path:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def download(self, selector: str, folder: Path, timeout: float = 20) -> Path:
        """Click what saves a file, and return the file's path in ``folder`` once it is written whole."""
        browser = self.browser
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        named: list[str] = []
        ended: list[str] = []

        def take(method: str, params: dict[str, Any]) -> None:
            if method == "Browser.downloadWillBegin":
                named.append(params["suggestedFilename"])
            elif method == "Browser.downloadProgress" and params["state"] != "inProgress":
                ended.append(params["state"])

        browser._sinks[""] = take
        try:
            self.click(selector)
            browser.pump(lambda: bool(ended), timeout, "a download")
        finally:
            del browser._sinks[""]
        if ended != ["completed"]:
            raise PageError(f"{named}: {ended}")
        return folder / named[0]
