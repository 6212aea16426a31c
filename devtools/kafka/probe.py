"""A metadata request on a bare socket: which brokers does this broker know?

Owns: the few bytes of the Kafka protocol that answer it (Metadata, API key 3, version 1, no topics).
Must not know: processes. No client library: this must work before one is set up, and beside any event loop.
"""

from __future__ import annotations

import socket
import struct

_METADATA_KEY = 3
_VERSION = 1
_REQUEST = struct.pack(">hhih5si", _METADATA_KEY, _VERSION, 7, 5, b"probe", 0)


def known_brokers(port: int, timeout_s: float = 2.0) -> set[int]:
    """Ask the broker on 127.0.0.1:`port` and return the node ids it knows alive; empty if it does not answer.

    Blocks for up to some `timeout_s` seconds. A broker answers only once it has started in full.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            (size,) = struct.unpack(">i", _read(connection, 4))
            return _node_ids(_read(connection, size))
    except OSError:
        return set()


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def _node_ids(answer: bytes) -> set[int]:
    """Read the brokers of a Metadata answer, version 1: id, host, port, nullable rack."""
    _correlation, count = struct.unpack_from(">ii", answer)
    at, found = 8, set()
    for _ in range(count):
        node, host = struct.unpack_from(">ih", answer, at)
        at += 6 + host + 4
        (rack,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack, 0)
        found.add(node)
    return found
