"""Services as users write them, small and whole; each is run by a test. Not installed."""
