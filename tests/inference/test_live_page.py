"""Page of live event streams in a browser."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import MISSING, find_chromium, running_chromium
from tests.inference.event_servers import NAMES, Server, live, records, shown, some, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason=MISSING)
def test_the_page(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page shows while a camera sends events, and after its connection is lost."""
    stop, lose, seen = threading.Event(), threading.Event(), list[object]()

    def send_until_lost() -> Iterator[bytes]:
        for k in range(100_000):
            if lose.is_set():
                return
            yield records(some(200, 10_000 * k, 10_000 * k + 9_999, k))
            time.sleep(0.01)

    server = Server(send_until_lost())

    def visit() -> None:
        try:
            address = shown(capsys, r"http://127.0.0.1:\d+/")
            with running_chromium(str(find_chromium())) as browser:
                for width, dark in ((1280, False), (390, True)):
                    browser.open(address, width=width, dark=dark)
                    browser.wait_for("document.querySelectorAll('.best .fill').length === 3", 60)
                    browser.wait_for("document.querySelector('img').naturalWidth === 16", 60)
                    assert browser.run("document.querySelector('h2').textContent") == f"tcp://{server.place}"
                    best = browser.run("[...document.querySelectorAll('.best span')].map((one) => one.textContent)")
                    assert sorted(best) == sorted(NAMES)  # as text, also that with tags
                    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
                    tiles = "[...document.querySelectorAll('.tile')].map((one) => one.textContent)"
                    browser.wait_for(f"{tiles}.some((one) => /[1-9].*events.s$/.test(one))", 60)
                    assert len(browser.run(tiles)) == 7
                    if shots := os.environ.get("SLOWFAST_SCREENSHOTS"):
                        browser.screenshot(Path(shots) / f"live_{width}.png")
                lose.set()
                server.listening.close()
                browser.wait_for("document.querySelector('.bad').textContent.startsWith('No connection')", 60)
                browser.wait_for("document.querySelector('.class').textContent === 'no events'", 60)
                assert not browser.errors
                assert {request.split("/")[2] for request in browser.requests} == {address.split("/")[2]}
            host = address.split("/")[2]
            with socket.create_connection(host.split(":")) as other:  # a name that leads here
                other.sendall(b"GET /state.json HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
                assert other.recv(100).startswith(b"HTTP/1.1 421")
        except BaseException as error:
            seen.append(error)
        finally:
            lose.set()
            stop.set()
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    words = (f"tcp://{server.place}", "--window", 0.2, "--page", 0, "--reconnect", 0.5)
    assert live(tmp_path, weights, *words) == 0
    visitor.join(60)
    assert stop.is_set() and not seen, seen
