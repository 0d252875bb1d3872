"""Settings: `model` composes them from the modules that obey them; `load` reads them.

This is the only package that reads the environment.
"""
