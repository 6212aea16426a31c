"""A door into a cluster: what is open, stalled and cut, with an echo server behind it and with a real broker."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from devtools.kafka.config import Entrance, free_addresses
from devtools.kafka.door import Door


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1_024):
            self.request.sendall(data)


@pytest.fixture
def door() -> Iterator[Door]:
    """A door with an echo server behind it."""
    (address,) = free_addresses(1, ["way"])
    (entrance,) = address.entrances
    with socketserver.ThreadingTCPServer(("127.0.0.1", entrance.port), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        opened = Door("way", {entrance.told: entrance.port})
        yield opened
        opened.close()
        opened.close()
        server.shutdown()
        thread.join()


def _connect(door: Door) -> socket.socket:
    host, _, port = door.bootstrap.rpartition(":")
    found = socket.create_connection((host, int(port)), 5)
    found.settimeout(5)
    return found


def test_an_open_door_lets_everything_through(door: Door) -> None:
    """Bytes pass both ways, whoever connects."""
    with _connect(door) as one, _connect(door) as other:
        one.sendall(b"one")
        other.sendall(b"other")
        assert (one.recv(99), other.recv(99)) == (b"one", b"other")


def test_a_stalled_door_holds_up_and_loses_nothing(door: Door) -> None:
    """Nothing passes and no connection breaks while a door is stalled; healed, it passes what it held up."""
    with _connect(door) as one:
        one.sendall(b"a")
        assert one.recv(1) == b"a"
        door.stall()
        one.sendall(b"b")
        one.settimeout(0.2)
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(5)
        door.heal()
        assert one.recv(1) == b"b"


def test_a_cut_door_breaks_and_refuses(door: Door) -> None:
    """Connections break, new ones are refused, until it is healed."""
    with _connect(door) as one:
        one.sendall(b"a")
        assert one.recv(1) == b"a"
        door.cut()
        assert _broken(one)
    with _connect(door) as one:
        assert _broken(one)
    door.heal()
    with _connect(door) as one:
        one.sendall(b"a")
        assert one.recv(1) == b"a"


def _broken(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_entrances_are_on_ports_of_their_own() -> None:
    """Every node has an entrance for each door, and no port is given twice."""
    addresses = free_addresses(2, ["one", "two"])
    entrances: list[Entrance] = [entrance for address in addresses for entrance in address.entrances]
    assert [entrance.name for entrance in entrances] == ["ONE", "TWO"] * 2
    ports = [port for address in addresses for port in (address.port, address.controller)]
    ports += [port for entrance in entrances for port in (entrance.port, entrance.told)]
    assert len(set(ports)) == 12
