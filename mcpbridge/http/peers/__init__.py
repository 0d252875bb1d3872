"""Requests between replicas: forwarding those for another one, and the port for those of others.

Reading order: `relay`, `fence`, `forwarding`, `admission`, `questions`. Imported with replicas
alone.
"""
