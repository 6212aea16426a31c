"""Kafka at its lowest: connections, a producer that cannot hang, topics. Knows nothing of events or Faust."""
