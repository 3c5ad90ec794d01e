FROM python:3.13-slim-trixie AS build
WORKDIR /srv
COPY requirements.txt .
# Without pip of its own: nothing is ever installed into the finished image.
RUN python -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --no-cache-dir --require-hashes --requirement requirements.txt \
    && rm requirements.txt
COPY app app
# The running container cannot write bytecode: its user does not own the code, and the root may be read-only.
RUN python -m compileall -q app

FROM python:3.13-slim-trixie AS service
LABEL org.opencontainers.image.title="Document Lifecycle API"
RUN install --directory --owner=10001 --group=10001 /data
WORKDIR /srv
COPY --from=build /srv .
# TMPDIR: SQLite spills large sorts and savepoints to disk, and under a read-only root only the volume takes them.
ENV PATH=/srv/.venv/bin:$PATH \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/data \
    TMPDIR=/data
# Numbers, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Not /readyz: whoever acts on this restarts the container, which helps a hung process but not an absent database.
# Past any proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import os, urllib.request as u; \
    u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"PORT\"]}/livez')"]
STOPSIGNAL SIGTERM
# The kernel drops a signal that the first process of a container has no handler for. So it is held back until Python has
# begun and installed one.
ENTRYPOINT ["env", "--block-signal=TERM,INT"]
CMD ["python", "-m", "app", "serve"]

# docker build --target with-ocr: what the processor ocr needs, too.
FROM service AS with-ocr
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tesseract-ocr tesseract-ocr-eng \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM service
