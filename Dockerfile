# The service. BASE may be replaced by any image with Python 3.11 or newer and its venv module:
#   docker build --build-arg BASE=registry.example.org/python:3.11-slim --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) .
ARG BASE=docker.io/library/python:3.11-slim

# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# Three environments: pip's own, the build back end's, and the one that is shipped, which has neither.
RUN python -m venv /pip && python -m venv --without-pip /backend && python -m venv --without-pip /opt/pyvatti
COPY requirements.lock requirements-build.lock ./
RUN /pip/bin/pip --python /opt/pyvatti/bin/python install --no-compile --require-hashes --only-binary :all: -r requirements.lock \
 && /pip/bin/pip --python /backend/bin/python install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY templates templates
COPY pyvatti pyvatti
# Byte code is checked by hash, so that neither a clock nor a writable folder matters to it.
RUN /backend/bin/python -m hatchling build -t wheel -d /wheel \
 && /pip/bin/pip --python /opt/pyvatti/bin/python install --no-compile --no-deps --no-index /wheel/*.whl \
 && rm -rf /opt/pyvatti/bin/activate* /opt/pyvatti/bin/Activate* \
 && find /opt/pyvatti -name direct_url.json -delete \
 && /opt/pyvatti/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/pyvatti/lib \
 && find /opt/pyvatti -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

# hadolint ignore=DL3006
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG BASE
LABEL org.opencontainers.image.title="pyvatti" \
      org.opencontainers.image.description="Runs polygenic score workflows on sensitive genomes and leaves nothing behind" \
      org.opencontainers.image.source="https://github.com/ebi-gdp/hattivatti" \
      org.opencontainers.image.documentation="https://github.com/ebi-gdp/hattivatti/blob/main/docs/install.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
# pip and what could bring it back, in the places of python.org's and of Debian's Python.
RUN rm -rf /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
           /usr/lib/python3*/ensurepip /usr/share/python-wheels /usr/lib/python3/dist-packages/*
COPY --from=build /opt/pyvatti /opt/pyvatti
ENV PATH=/opt/pyvatti/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
# No HEALTHCHECK: the cluster's probes ask /healthz and /readyz.
ENTRYPOINT ["pyvatti"]
CMD ["serve"]
