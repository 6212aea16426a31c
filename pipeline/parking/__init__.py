"""Keeping the healthy going: a breaker per target, and events that wait in `<ns>.parked` until theirs is well."""
