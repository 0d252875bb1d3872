"""Telling what happens.

`logs` writes records to stderr; `meters` counts, and `export` renders that for Prometheus;
`traces` is what the bridge asks of a tracer, and `otel` the one there is; `dashboard` counts for
`mcpbridge sidecar`. `export`, `otel` and `dashboard` are imported only where they are used.
"""
