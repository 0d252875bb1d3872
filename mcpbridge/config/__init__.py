"""Settings: from the command line, the environment and files to one checked `Config`.

`model` holds all of them, `load` reads them, `values` parses one, `command` is what concerns the
server's process, `listen_address` where to listen, `self_url` under which URL clients see the
bridge, `auth` and `otel` are checked across several settings, `settings_table` writes
docs/settings.md.
"""
