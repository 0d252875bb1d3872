"""What a replica shares with others through a store, if there is one.

Reading order: `changes`, `claims`, `shared_store`. Imported with `--store` only.
"""
