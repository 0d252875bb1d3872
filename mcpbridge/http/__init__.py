"""HTTP for clients.

`app` takes each request to its route; `request` and `body` read it, `origin_check` and `cors` check
where it comes from, `responses` writes JSON, event streams and errors, `keepalive` keeps open
streams alive, `disconnect` says when a client has left. `health` answers probes, `admin` serves
them and the metrics, on another port if the operator sets one, by the routes of `pages`;
`request_metrics` counts.

- `transports/`: Streamable HTTP of both eras, and HTTP+SSE.
- `auth/`: who calls, and how many messages they may send.
- `server/`: connections, their limits, TLS, and the fast path.
"""
