"""Every decision, pure: no clock (time arrives as `now`), no I/O, no logging, no randomness.

`revisions` what each dated protocol can do; `methods` one row per MCP method; `faults` what a
client is told when the bridge cannot answer; `hosts` which Host and Origin may in; `admission`
an HTTP request that passed every rule, or its refusal; `profile` what a child said of itself;
`lifecycle` the states of a session and of the drain; `isolation` which child a session gets;
`correlate` ids and tokens on a child's pipe; `eventlog` the record of one stream; `restart`
when a child is started again; `outcome` how a call ended; `tracing` which trace it belongs to;
`glance` what a proxy reads in passing; `tokens` what a token of an authorization server must be;
`principals` who a client is, `bearer` by which token of the operator's, `headerenv` with which
values for its processes, `quota` how much it may ask.
"""
