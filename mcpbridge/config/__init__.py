"""Settings: from the command line, the environment and files to one checked `Config`.

`model` defines all of them, `load` reads them, `values` parses one, `command` handles the server's
command and environment, `listen_address` the address to listen on, `self_url` the URL of the
running bridge, `auth` and `otel` check several settings together, `servers_file` reads a file of
servers, and `settings_table` writes docs/settings.md.
"""
