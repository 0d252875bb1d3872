"""Several servers in one process, by name.

`directory` finds the server of a name and replaces servers as their entries change; `member` runs
one of them; `reload` notices that their file has changed.
"""
