"""One call: what it needs, its exchange with a child, its event stream and its log line."""
