"""Brokers as Docker containers of the official image `apache/kafka`, through testcontainers.

Owns: containers and their network. Must not know: Java, other engines.
A crash leaves nothing behind: testcontainers' own reaper removes the containers of programs that are gone.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import docker.errors  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient, get_docker_host
from testcontainers.core.network import Network

from devtools.kafka.config import Address, Options, new_cluster_id, properties, told
from devtools.kafka.errors import BrokerFailed, NoBroker
from devtools.kafka.jars import kafka_version
from devtools.kafka.node import Node
from devtools.kafka.scratch import Scratch

_PEER_PORT = 19092
_DATA = "/var/lib/kafka/data"
_SETTINGS = "/mnt/shared/config"  # the image reads its server.properties from there


class DockerNode(Node):
    """One container; it keeps its data until the engine is closed."""

    def __init__(self, address: Address, container: DockerContainer) -> None:
        super().__init__(address)
        self._container = container
        self._made = False

    @property
    def running(self) -> bool:
        """Whether the container's process is there; also true while it is paused or still starting."""
        return self._status() in {"running", "paused"}

    def start(self) -> None:
        """Start the container; does not wait until it answers. Nothing happens if it runs already."""
        try:
            if not self._made:
                self._made = True
                self._container.start()
            elif not self.running:
                self._container.get_wrapped_container().start()
        except docker.errors.APIError as error:
            raise BrokerFailed(f"broker {self.address.node_id} cannot be started", str(error)) from error

    def kill(self) -> None:
        """Kill the process (SIGKILL), as a crash would, and wait until it is gone."""
        self.resume()  # an engine signals no paused container
        if self.running:
            self._container.get_wrapped_container().kill("SIGKILL")
            self._container.get_wrapped_container().wait()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask the process to shut down in order (SIGTERM) and wait; the engine kills it after `timeout_s`."""
        self.resume()
        if self.running:
            self._container.get_wrapped_container().stop(timeout=round(timeout_s))

    def pause(self) -> None:
        """Freeze the process: connections stay open, nothing answers."""
        if self._status() == "running":
            self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let a paused process go on."""
        if self._status() == "paused":
            self._container.get_wrapped_container().unpause()

    def log_text(self) -> str:
        """Return what the container has printed, over all its starts."""
        if self._status() is None:
            return ""
        return str(self._container.get_wrapped_container().logs().decode(errors="replace"))

    def _status(self) -> str | None:
        made = self._container.get_wrapped_container() if self._made else None
        if made is None:
            return None
        made.reload()
        return str(made.status)


class DockerEngine:
    """Runs brokers with the Docker engine of this machine, in the version that `pom.xml` names."""

    name = "docker"

    def __init__(self) -> None:
        """Look for an engine and the image, pulling it if need be (blocks). Raises `NoBroker`."""
        self._image = f"apache/kafka:{kafka_version()}"
        _look_for_socket()
        try:
            client = DockerClient()
            try:
                _have_image(client, self._image)
            finally:
                client.client.close()
        except docker.errors.DockerException as error:
            raise NoBroker(f"Docker has no {self._image} to run; let it be pulled ({error})") from error
        self._containers: list[DockerContainer] = []
        self._network: Network | None = None

    def create(
        self, addresses: Sequence[Address], options: Options, scratch: Scratch
    ) -> tuple[DockerNode, ...]:
        """Prepare a node for each address: its settings, its container, their network."""
        cluster_id = new_cluster_id()
        self._network = Network().create()
        nodes = []
        for address in addresses:
            folder = scratch.path / f"node-{address.node_id}"
            folder.mkdir(mode=0o755)
            text = properties(address, addresses, _DATA, listeners(address, addresses), options.extra_config)
            (folder / "server.properties").write_text(text)
            container = self._container(address, options, folder, cluster_id).with_network(self._network)
            self._containers.append(container)
            nodes.append(DockerNode(address, container))
        return tuple(nodes)

    def close(self) -> None:
        """Remove the containers with their data, and the network."""
        for container in self._containers:
            container.stop()
        self._containers.clear()
        if self._network is not None:
            self._network.remove()
            self._network = None

    def _container(
        self, address: Address, options: Options, settings: Path, cluster_id: str
    ) -> DockerContainer:
        container = DockerContainer(self._image)
        # Only for this machine: the library's own method would open the port to the network.
        for port in (address.port, *(entrance.port for entrance in address.entrances)):
            container.ports[f"{port}/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]
        return (
            container.with_volume_mapping(str(settings), _SETTINGS, "ro")
            .with_network_aliases(_peer(address))
            .with_env("CLUSTER_ID", cluster_id)
            .with_env("KAFKA_HEAP_OPTS", f"-Xmx{options.heap_mb}m")
            .with_env("KAFKA_JVM_PERFORMANCE_OPTS", " ".join(options.jvm))
        )


def listeners(address: Address, all_of: Sequence[Address]) -> Mapping[str, str]:
    """Return the settings that differ in containers: brokers reach each other by name, not on 127.0.0.1."""
    return {
        "controller.quorum.voters": ",".join(f"{a.node_id}@{_peer(a)}:{a.controller}" for a in all_of),
        "listeners": f"PLAINTEXT://:{address.port},PEER://:{_PEER_PORT},CONTROLLER://:{address.controller}"
        + "".join(f",{entrance.name}://:{entrance.port}" for entrance in address.entrances),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{address.port},PEER://{_peer(address)}:{_PEER_PORT}"
        + told(address),
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT"
            for name in ("PLAINTEXT", "PEER", "CONTROLLER", *(one.name for one in address.entrances))
        ),
        "inter.broker.listener.name": "PEER",
    }


def _peer(address: Address) -> str:
    return f"node-{address.node_id}"


def _look_for_socket() -> None:
    """Raise `NoBroker` unless an engine listens on a socket of this machine.

    Looked for by hand because the client library leaks a socket where nobody listens.
    """
    url = urlsplit(get_docker_host() or "unix:///var/run/docker.sock")
    if url.scheme != "unix":
        raise NoBroker(f"the Docker engine at {url.geturl()} is not this machine's own; unset DOCKER_HOST")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(url.path)
        except OSError:
            raise NoBroker(f"no Docker engine answers at {url.path}; start Docker") from None


def _have_image(client: DockerClient, image: str) -> None:
    try:
        client.client.images.get(image)
    except docker.errors.ImageNotFound:
        print(f"kafka: pulling {image} (once)", file=sys.stderr)
        client.client.images.pull(image)
