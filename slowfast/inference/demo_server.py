"""HTTP server of the page of `slowfast demo`."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slowfast.errors import UserError, system_reason

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLL = 0.1  # seconds between checks for a stop
_START = 30.0  # seconds for the server to start
_FINISH = 2  # seconds for open connections to finish
_JOIN = 5.0  # seconds for the server to end
# The page loads nothing from other servers, and no other page embeds it. Gradio's scripts and styles are inline.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'self'"
)
_HEADERS = ((b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer"))


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: Name or address of a network interface.
        port: Port; 0 for any free one.
        option: Option of the port, for messages.

    Raises:
        UserError: If the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"{option}: {port} is in use on {host}. Choose another port, or 0 for any free one"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(
                f"{option}: {port} may not be used ({system_reason(error)}). Choose a port from 1024"
            ) from error
        raise UserError(f"--host: cannot listen on {host} ({system_reason(error)})") from error


def is_loopback(listening: socket.socket) -> bool:
    """Return whether only this machine can reach a socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def page_address(listening: socket.socket) -> str:
    """Return the address of the page in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class WithHeaders:
    """ASGI application that adds headers to all responses of another one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)


class PageServer:
    """Server of a page, in a thread.

    Args:
        page: The page, a `gradio.Blocks`.
        listening: Socket to serve; closed at the end.
        max_bytes: Largest size of an uploaded file.
    """

    def __init__(self, page: Any, listening: socket.socket, max_bytes: int) -> None:
        import uvicorn

        self._socket = listening
        config = uvicorn.Config(
            _application(page, listening, max_bytes),
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_FINISH,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True, name="server")

    def start(self) -> None:
        """Start the server; return once it serves pages."""
        self._thread.start()
        until = time.monotonic() + _START
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(_POLL / 10)
        if not self._server.started:
            raise RuntimeError("the server of the page did not start")

    def serve_until(self, stopped: Callable[[], bool]) -> None:
        """Wait until `stopped` returns True or the server has ended."""
        while not stopped() and self._thread.is_alive():
            time.sleep(_POLL)

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_JOIN)
        self._socket.close()


def _application(page: Any, listening: socket.socket, max_bytes: int) -> Any:
    """Return the web application of a page."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    middleware = [Middleware(WithHeaders)]
    if is_loopback(listening):
        # Protects against pages that resolve their own name to this machine (DNS rebinding).
        hosts = ["localhost", listening.getsockname()[0], "[::1]"]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=hosts))
    host, port = listening.getsockname()[:2]
    return gradio.mount_gradio_app(
        FastAPI(middleware=middleware, docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        server_name=host,
        server_port=port,
        show_error=True,
        max_file_size=max_bytes,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        # System fonts, because the default ones are fetched from a web server.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
