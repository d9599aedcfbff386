"""Connections that take their time are cut: slow headers, slow bodies, answers nobody reads, and too many at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from smeld.viewer import _guard, _peer

#: seconds between two looks at all connections
EVERY_S = 0.5


class Patient(H11Protocol):  # type: ignore[misc,unused-ignore]
    """uvicorn's connection, with the times at which it last made progress."""

    def connection_made(self, transport: Any) -> None:
        """A client has come; of too many the one goes that has been waited for longest, and other users go at once."""
        super().connection_made(transport)
        self.since = time.monotonic()  # when it began to be waited for
        self.waiting = 0  # bytes of the answer that are still to go
        if self.client and self.server and _peer.is_foreign(self.client, self.server):
            transport.abort()
            return  # it pushes nobody out
        silent = [c for c in self.connections if isinstance(c, Patient) and c is not self and c.step() != "answer"]
        if len(self.connections) > _guard.MOST_CONNECTIONS and silent:
            min(silent, key=lambda c: c.since).transport.abort()

    def step(self) -> str:
        """What is waited for: headers, a body, an answer, or the next request."""
        state = self.conn.their_state
        if state is h11.IDLE:
            return "idle" if self.cycle is not None and not self.conn.trailing_data[0] else "headers"
        if state is h11.SEND_BODY:
            return "body"
        return "answer"

    def data_received(self, data: bytes) -> None:
        """Something came: a new step begins with its first bytes, not with each."""
        before = self.step()
        super().data_received(data)
        if self.step() != before:
            self.since = time.monotonic()

    def on_response_complete(self) -> None:
        """An answer is written; what is still to go is watched."""
        super().on_response_complete()
        self.since = time.monotonic()

    def overdue(self, now: float) -> bool:
        """True for a connection that has been waited for too long."""
        left = self.transport.get_write_buffer_size()
        if left:
            if left != self.waiting:
                self.waiting, self.since = left, now
            return now - self.since > _guard.STALLED_S
        self.waiting = 0
        limit = {"headers": _guard.HEADERS_S, "body": _guard.BODY_S + 5, "idle": _guard.IDLE_S}.get(self.step())
        return limit is not None and now - self.since > limit


async def watch(server: Any) -> None:
    """Cut what is overdue, for as long as the server runs."""
    while not server.should_exit:
        now = time.monotonic()
        for connection in list(server.server_state.connections):
            if isinstance(connection, Patient) and connection.overdue(now):
                connection.transport.abort()
        await asyncio.sleep(EVERY_S)
