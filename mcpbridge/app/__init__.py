"""The program `mcpbridge -- COMMAND`.

`build` assembles it without any I/O, `lifecycle` runs it from start to end, `resource_limits` fits
the limits to the descriptors there are, `state_dump` is what SIGUSR1 logs. Two small programs lie
beside it: `health_client` asks a probe, `self_copy` copies the installation.
"""
