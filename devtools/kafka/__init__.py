"""A real Apache Kafka for development, tests, benchmarks and the demo.

    with Cluster() as kafka:          # one broker, free ports, gone afterwards
        client(kafka.bootstrap)

On the command line: `python -m devtools.kafka start|stop|status|run`.
"""

from __future__ import annotations

from devtools.kafka.choice import Brokers
from devtools.kafka.cluster import Cluster, brokers
from devtools.kafka.errors import BrokerFailed, NoBroker
from devtools.kafka.node import Node

__all__ = ["BrokerFailed", "Brokers", "Cluster", "NoBroker", "Node", "brokers"]
