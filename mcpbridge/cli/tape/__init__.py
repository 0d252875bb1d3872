"""The programs that read recordings."""
