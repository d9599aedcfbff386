"""Who is at the other end of a connection: a token alone must not let in another user of the machine.

The address with its token is an argument of the browser that it opens, and arguments can be read by everyone; cookies
of 127.0.0.1 go to every port of it. Linux says which user a connection within the machine belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

Ends = tuple[str, int]

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
#: root may do all in any case; the last is what Linux shows for users that this container has no number for
ANYWAY = (0, 65534)
_ESTABLISHED = "01"


def is_foreign(client: Ends, server: Ends) -> bool:
    """True if the client's end of a connection within this machine belongs to another user.

    False where that cannot be told: on other systems, and where the tables of connections cannot be read.
    """
    if not hasattr(os, "getuid"):
        return False
    entry = next(_entries(_lines(), client, server), None)
    if entry is None:
        return False
    state, uid = entry
    # an end that was closed already belongs to nobody: it is shown as root's
    return state != _ESTABLISHED or uid not in (*ANYWAY, os.getuid(), os.geteuid())


def _lines() -> Iterator[str]:
    for table in TABLES:
        try:
            yield from table.read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue


def _entries(lines: Iterable[str], client: Ends, server: Ends) -> Iterator[tuple[str, int]]:
    """State and user of the connection's end that is the client's."""
    for line in lines:
        parts = line.split()
        if len(parts) > 7 and _is(parts[1], client) and _is(parts[2], server):
            yield parts[3], int(parts[7])


def _is(shown: str, end: Ends) -> bool:
    """An end as the table shows it: the address in hexadecimal, its bytes turned round, of IPv6 in the last eight."""
    address, _, port = shown.partition(":")
    turned = "".join(f"{int(part):02X}" for part in reversed(end[0].split(".")))
    return int(port, 16) == end[1] and address[-8:] == turned
