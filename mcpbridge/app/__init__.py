"""The program `mcpbridge -- COMMAND`.

`build` assembles it without any I/O, `lifecycle` runs it from start to end, `resource_limits` fits
the settings to the system's limits, `state_dump` collects what SIGUSR1 logs. Two small programs are
here too: `health_client` asks a probe, `self_copy` copies the installation.
"""
