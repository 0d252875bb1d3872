# The bridge in an image: `docker build -t mcpbridge .`
# To serve a server of your own, build on it and say how to start it: CMD ["--", "python", "server.py"]

FROM python:3.12-slim AS builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /build \
    && /build/bin/pip install --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY mcpbridge ./mcpbridge
# The environment holds no pip of its own; pip compiles the modules, since at run time nobody can.
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && python -m venv --without-pip /opt/mcpbridge \
    && /build/bin/pip --python /opt/mcpbridge/bin/python install --constraint constraints.txt /dist/*.whl

FROM python:3.12-slim
LABEL org.opencontainers.image.title="mcpbridge" \
      org.opencontainers.image.description="Serves a stdio MCP server to many clients over Streamable HTTP." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.authors="The mcpbridge authors"
ENV PYTHONDONTWRITEBYTECODE=1
COPY --from=builder /opt/mcpbridge /opt/mcpbridge
# A link and not PATH: `python` stays the image's own, where a wrapped server has its packages.
RUN ln -s /opt/mcpbridge/bin/mcpbridge /usr/local/bin/mcpbridge
# A number, so that a cluster can see that it is not root; no file of the image belongs to it.
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["mcpbridge", "health"]
ENTRYPOINT ["mcpbridge"]
