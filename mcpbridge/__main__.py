"""Runs the command line: `python -m mcpbridge`."""

from mcpbridge.cli.main import main

if __name__ == "__main__":
    main()
