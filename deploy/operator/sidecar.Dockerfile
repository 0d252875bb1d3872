# The operator gives flags to its metrics sidecar and no command, so the command is the image's:
# docker build -t mcpbridge-sidecar:1 -f deploy/operator/sidecar.Dockerfile deploy/operator
FROM ghcr.io/mcpbridge/mcpbridge:0.1.0-slim
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/opt/mcpbridge/bin/mcpbridge", "health", "http://127.0.0.1:9090/healthz"]
ENTRYPOINT ["/opt/mcpbridge/bin/mcpbridge", "sidecar"]
