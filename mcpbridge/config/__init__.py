"""Settings: what can be set, and how it is read.

`model` composes the settings from the modules that obey them; `values` reads and shows one text;
`load` reads flags and environment into one `Config`; `command` finds what to start in them, and
`alone` reads what a program with few settings needs; `address` decides where to listen; `reach`
finds the bridge from beside it; `auth` reads the tokens of the operator, `oauth` whether others'
tokens are taken; `otel` tells whether anything goes to a collector; `table` writes the list in the
README.

This is the only package that reads the environment.
"""
