"""`mcpbridge login`: a token for a remote server by OAuth 2.1, kept in a file for `connect`.

In reading order: `oauth_http` (bounded requests), `saved_login` (the file, and its refreshing),
`kept_login` (the login of a server that is served), `discovery` (which authorization server, and
what it offers), `callback` (where the browser brings the code), `program` (the whole login).
"""
