"""Whether a server can listen on a port, asked before anything heavy is loaded."""

from __future__ import annotations

import errno
import socket

from workbench.errors import UserInputError


def require_free_port(host: str, port: int) -> None:
    """Raise UserInputError when ``host:port`` cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # servers set it too: without it a port stays taken for a minute after its server ended
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserInputError(
                    f"Port {port} is taken by another program.", "Choose another: --port N."
                ) from None
            raise UserInputError(
                f"{host}:{port} cannot be used: {error.strerror or error}.",
                "Choose another --host or --port.",
            ) from None
