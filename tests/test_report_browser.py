"""The report in a real browser: no error, no request, every figure visible, hostile names inert."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import chrome_pipe
import smeld as sm
import stored_section

#: what the log says of requests that no page made
OWN = "not an origin"
#: written into a copy of the page, which alone may run it: measures the figures, finding in title
PROBE = """<script nonce="probe">addEventListener("load", () => {
  const images = [...document.images];
  document.title = "PROBE " + JSON.stringify({
    images: images.map(i => i.complete && i.naturalWidth > 0 && i.getBoundingClientRect().width > 50),
    scripts: document.scripts.length, wide: document.documentElement.scrollWidth > innerWidth + 1,
    handlers: document.querySelectorAll("[onerror],[onload],[onclick]").length});
});</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = chrome_pipe.find_browser()
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(chrome_pipe.BROWSERS)})")
    return found


def opened(browser: str, page: Path, folder: Path, width: int = 1200) -> tuple[str, str, list[str]]:
    """(the page as the browser holds it, its log, the addresses it asked for)."""
    net = folder / "net.json"
    command = [
        browser,
        *chrome_pipe.QUIET,
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever asks, nothing leaves this machine
        f"--log-net-log={net}",
        f"--window-size={width},900",
        "--enable-logging=stderr",
        "--virtual-time-budget=3000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode(), done.stderr.decode(errors="replace"), _asked(net)


def _asked(net: Path) -> list[str]:
    """What the page asked for, by the log of the network: addresses, and hosts looked up.

    The browser's own errands (the time, updates) are in the log as well; those of a page carry its origin.
    """
    events = json.loads(net.read_text(encoding="utf-8"))["events"]
    found = set()
    for event in events:
        facts = event.get("params", {})
        keys = (facts.get("network_isolation_key"), facts.get("network_anonymization_key"))
        by_page = facts.get("initiator", OWN) != OWN or any("file://" in str(key) for key in keys)
        if by_page and ("url" in facts or "host" in facts):
            found.add(str(facts.get("url", facts.get("host"))))
    return sorted(found)


def complaints(log: str) -> list[str]:
    """What the page itself had to say: the browser marks these lines with CONSOLE."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return sm.report(stored_section.hostile(), folder / "report.html")


def test_no_console_error_and_no_request(browser, page, tmp_path):
    dom, log, asked = opened(browser, page, tmp_path)
    assert "</html>" in dom and complaints(log) == []
    assert asked == []
    assert "alert(1)&lt;/script&gt;" in dom and "<script" not in dom


def test_a_page_that_does_ask_and_complain_is_caught(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!DOCTYPE html><link rel="preconnect" href="http://other.invalid">'
        '<img src="http://127.0.0.1:9/x.png"><script>console.error("broken")</script>',
        encoding="utf-8",
    )
    _, log, asked = opened(browser, bad, tmp_path)
    assert "http://127.0.0.1:9/x.png" in asked
    assert any("notfound" in host for host in asked)  # the host that was only looked up
    assert any("broken" in line for line in complaints(log))


@pytest.mark.parametrize("width", [1200, 480])
def test_figures_are_visible(browser, page, tmp_path, width):
    probed = tmp_path / "probed.html"
    html = page.read_text(encoding="utf-8")
    allowed = html.replace("&#39;none&#39;;", "&#39;none&#39;; script-src &#39;nonce-probe&#39;;", 1)
    assert allowed != html
    probed.write_text(allowed.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dom, log, asked = opened(browser, probed, tmp_path, width)
    found = json.loads(re.search(r"<title>PROBE (.*?)</title>", dom)[1])
    assert found["images"] == [True] * 5
    assert found["scripts"] == 1 and found["handlers"] == 0  # the probe alone
    assert not found["wide"]
    assert complaints(log) == [] and asked == []
