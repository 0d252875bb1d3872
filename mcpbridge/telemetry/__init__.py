"""What operators see: `logs`, `metrics` and their `prometheus` exposition, `tracer` and `otel`."""
