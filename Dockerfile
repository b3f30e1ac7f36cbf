# Operator, coordinator and CLI: the control side. No torch, so it starts in a second.
#
#   docker build -t drivetrain-operator .
# The base is a name here, so that a checkout builds anywhere; a release wants it with its digest (scripts/release --base).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

RUN groupadd --gid 1000 drivetrain \
 && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin drivetrain

# What we depend on changes seldom, and comes before what we write.
COPY requirements/build.txt requirements/operator.txt /tmp/requirements/
RUN python -m venv /opt/drivetrain \
 && /opt/drivetrain/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
      --requirement /tmp/requirements/build.txt --requirement /tmp/requirements/operator.txt \
 && rm -r /tmp/requirements

# What an init container brings into workers' images that were not made for Drivetrain: /opt/drivetrain/runtime.
COPY requirements/runtime.txt scripts/runtime-packages /tmp/requirements/
RUN sh /tmp/requirements/runtime-packages /opt/drivetrain/bin/pip /tmp/requirements/runtime.txt /opt/drivetrain/runtime/last \
 && rm -r /tmp/requirements
COPY worker-image/brought /opt/drivetrain/runtime
COPY operator/drivetrain_api /opt/drivetrain/runtime/first/drivetrain_api
COPY worker-image/drivetrain /opt/drivetrain/runtime/first/drivetrain

COPY LICENSE README.md pyproject.toml /opt/drivetrain/src/
COPY operator /opt/drivetrain/src/operator
RUN /opt/drivetrain/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
      /opt/drivetrain/src \
 && cp -R /opt/drivetrain/lib/python3*/site-packages/drivetrain-*.dist-info /opt/drivetrain/runtime/first/ \
 && rm -r /opt/drivetrain/src /opt/drivetrain/bin/drivetrain-launcher /opt/drivetrain/bin/drivetrain-snapshots

ENV PATH=/opt/drivetrain/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
CMD ["drivetrain-operator"]

# What this image is, for registries and scanners. Last, because it changes with every commit.
ARG PYTHON_IMAGE
ARG VERSION=checkout
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="drivetrain-operator" \
      org.opencontainers.image.description="Operator, coordinator and command line of Drivetrain" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="the Drivetrain authors" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
