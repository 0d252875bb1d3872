"""What only Windows needs: job objects in place of process groups, and the programs of a command.

`job` ends a process with all that it starts, `command` finds the file of a command.
"""
