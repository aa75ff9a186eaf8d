"""`slowfast demo`: serve a web page for trying out a trained model."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.cli.command import DONE, CommandParser, exit_status, integer
from slowfast.cli.setup import parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.files import MIB
from slowfast.utils.logging import get_logger, messages_on_screen
from slowfast.utils.screen import Heartbeat, phase, show

if TYPE_CHECKING:
    from slowfast.inference.demo_analysis import FileAnalyzer

EXAMPLE = "slowfast demo --cfg K400/K400_MLP_S16x4 --weights weights.pyth"
DESCRIPTION = f"""\
Serve a web page for trying out a trained model: upload a video or an image and see the five best classes, the Grad-CAM
heat map and, with evMLP on videos, the patches that event-driven inference computes and what it saves. Image networks
take videos too, frame by frame.

  {EXAMPLE}
  slowfast demo --cfg ImageNet/EVMLP --weights evmlp.pth EVENT.THRESHOLD 0.1

Nothing leaves this machine: the page listens on 127.0.0.1 unless --host is given and loads nothing from other servers.
Uploaded files are kept in a private temporary folder, for half an hour at most. Ctrl-C or SIGTERM ends the server and
deletes the folder. Needs the extra demo (Gradio). Config overrides, KEY VALUE pairs, follow the options.
"""
USAGE = "%(prog)s --cfg FILE [--weights PATH] [--host HOST] [--port N] [--max-upload MIB] [KEY VALUE ...]"
PORT, MAX_UPLOAD = 7860, 200
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_STEP = 3.0  # seconds for an analysis to notice that the server stops


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast demo", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all networks (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=integer(0, 65535),
        default=PORT,
        metavar="N",
        help="port; 0 for any free port (default: %(default)s)",
    )
    parser.add_argument(
        "--max-upload",
        type=integer(1, 100_000),
        default=MAX_UPLOAD,
        metavar="MIB",
        help="largest size of an uploaded file in MiB (default: %(default)s)",
    )
    parser.set_defaults(num_workers=0)  # one file at a time
    return parse_with_config(parser, arguments)


def main(arguments: Sequence[str]) -> int:
    """Serve and return the exit status: 0 after Ctrl-C or SIGTERM, 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _demo(*parse(arguments)))


def _demo(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.demo_page import import_gradio
    from slowfast.inference.demo_server import bind

    # Errors that the user can fix come before the slow part.
    with bind(chosen.host, chosen.port) as listening, tempfile.TemporaryDirectory(prefix="slowfast-demo-") as folder:
        with phase("importing Gradio"):
            import_gradio(Path(folder))
        from slowfast.inference.demo_analysis import FileAnalyzer

        with phase("building the model and loading its weights"):
            analyzer = FileAnalyzer.from_config(cfg)
        _serve(analyzer, listening, Path(folder), chosen.max_upload * MIB)
    if not analyzer.ended(_LAST_STEP):
        # Python would wait for the thread of the analysis.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(DONE)


def _serve(analyzer: FileAnalyzer, listening: socket.socket, folder: Path, max_bytes: int) -> None:
    """Serve the page until a signal arrives."""
    from slowfast.inference.demo_page import DemoPage
    from slowfast.inference.demo_server import PageServer, is_loopback, page_address

    page = DemoPage(analyzer, folder, max_bytes).build()
    server = PageServer(page, listening, max_bytes)
    with _stop_signals() as received:
        try:
            server.start()
            if not is_loopback(listening):
                get_logger().warning("Everyone who can reach this machine can use the page, because it has no password")
            show(f"Serving {page_address(listening)} (Ctrl-C ends it)")
            Heartbeat.end()  # the heartbeat must not report the wait for visitors
            server.serve_until(lambda: bool(received))
        finally:
            analyzer.stop.set()
            server.close()
    show(f"Received {received[0]}, the server has ended" if received else "The server has ended")


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect the names of the signals that arrive.

    A second one has no effect: the end takes seconds at most, and programs such as `timeout` forward a signal that the
    process has received already.
    """
    received: list[str] = []
    before = {one: signal.getsignal(one) for one in _STOP}
    if before[signal.SIGHUP] == signal.SIG_IGN:  # under nohup
        del before[signal.SIGHUP]
    for one in before:
        signal.signal(one, lambda number, _: received.append(signal.Signals(number).name))
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
