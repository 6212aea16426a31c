"""The service's outbox: where events wait, fsynced and in order, while the staging broker cannot be reached.

`protocol` says what any outbox is; `row` is the format, `store` RocksDB, `slots` the folders of several processes,
`process` the outbox of this one.
"""
