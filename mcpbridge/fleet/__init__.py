"""Several servers in one process, by name.

`directory` finds the server of a name and replaces servers as their entries change; `member` runs
one of them; `adoption` gives it a changed entry while its sessions stay; `start_on_demand` ends its
processes while no client needs them; `reload` notices that the file has changed.
"""
