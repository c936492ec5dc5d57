"""Time-outs and a limit for connections, which uvicorn lacks before a request and while a response is sent.

Otherwise anybody who reaches the port, with or without a token, exhausts the descriptors or the memory of the server with
connections that send no complete request, or that do not read their response.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A connection that is closed without progress, and makes room for newer ones."""

    CHECK_S = 10.0
    """A connection that makes no progress between two checks is closed."""
    MAX_CONNECTIONS = 256
    """Above it, the oldest connection without a request in progress is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._opened_s = self.loop.time()
        self._state = self._progress()
        self._check = self.loop.call_later(self.CHECK_S, self._close_without_progress)
        open_ones = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(open_ones) > self.MAX_CONNECTIONS:
            idle = [one for one in open_ones if one._is_idle()]  # this one is among them
            min(idle, key=lambda one: one._opened_s).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether the server waits for the client: for a request, or until it has read the response."""
        return self.cycle is None or self.cycle.response_complete

    def _progress(self) -> tuple[object, int]:
        """Changes with every request, and with every part of a response that the client reads."""
        return self.cycle, self.transport.get_write_buffer_size()

    def _close_without_progress(self) -> None:
        before, self._state = self._state, self._progress()
        if self._is_idle() and self._state == before:
            self.transport.abort()
        else:
            self._check = self.loop.call_later(self.CHECK_S, self._close_without_progress)
