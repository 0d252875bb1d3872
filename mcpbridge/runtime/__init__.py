"""The process itself: signals, exit status and a watchdog for its event loop."""
