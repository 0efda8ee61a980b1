# One image for the API, the worker and the migrations; compose says which. Servers are images of their own, so the
# `embedded` extra's wheels are installed only because the lock is one file.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /srv/flash

# Before the code: this layer is built again only when the lock changes.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md ./
COPY app app
COPY workers workers
COPY migrations migrations
RUN pip install --no-deps --no-build-isolation --editable . \
    && chmod -R a+rX . \
    && python -m compileall -q app workers migrations \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin flash

USER 10001:10001
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]

ENTRYPOINT ["flash"]
CMD ["api", "--host", "0.0.0.0", "--port", "8000"]
