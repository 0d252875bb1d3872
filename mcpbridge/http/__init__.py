"""HTTP towards clients.

`app` takes each request to its route; `request` and `body` read it, `origin_check` and `cors` check
where it comes from, `responses` writes JSON, event streams and errors, `keepalive` keeps open
streams alive, `disconnect` says when a client has left. `health` answers probes, `admin` serves
them and the metrics, on a port of their own if the operator wants one; `request_metrics` counts.

- `transports/`: Streamable HTTP of both eras, and HTTP+SSE.
- `auth/`: who calls, and how much they may ask.
- `server/`: connections, their limits, TLS, and the fast path.
"""
