"""What replicas have in common if there is a store: who adopted a session, and what changed in it.

Read in this order: `store`, what a store is asked; `memory`, one in this process; `redis`, one on a
Redis or Valkey server, with `url` and `breaker`; `heartbeat`, the sign that a replica lives, and
`fence`, what it must do after that sign was missing.

Imported only with `--store`.
"""
