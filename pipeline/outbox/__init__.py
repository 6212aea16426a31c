"""The service's outbox: where events wait, fsynced and in order, while the staging broker cannot be reached.

`row` is the format, `store` RocksDB, `slots` the folders of several processes, `process` the one of this process.
"""
