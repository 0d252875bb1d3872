"""Several processes that serve together: any of them serves any session.

A session id names the process that has the session, sealed with the operator's key; another one
forwards what a client sends to it. Nothing of this package is imported without `--peers`.

Reading order: `session_id`, `peer_proof`, `peer_client`, `peers`, `peer_questions`, `leaving`,
`tombstones`, the package `adoption`, `notices`, `homes`, `handover`, `placement`; with a store the
package `claims`.
"""
