"""Programs for those who work on mcpbridge; nothing here is installed."""
