"""Decides which replica has a session, the session's home, and who may take it over.

Read in this order: `peer_view`, the replicas that one of them knows; `rendezvous`, the order in
which they are asked; `owner`, whether a replica is dead; `adoption`, who adopts a session and when;
`lost_calls`, what may be sent again; `states`, the life of a session on one replica; `record`, what
its next home must know of it.
"""
