"""`python -m mcpbridge`."""

from mcpbridge.cli import main

if __name__ == "__main__":
    main()
