"""What a service uses: checking an event, and the stagers that make it durable. Knows nothing of the worker."""
