"""A call: its context, its exchange with a child, its event stream, its log record and spans."""
