# Operator, coordinator and CLI: the control side. No torch, so it starts in a second.
#
#   docker build -t drivetrain-operator .
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

COPY LICENSE README.md pyproject.toml /opt/drivetrain/src/
COPY operator /opt/drivetrain/src/operator
RUN /opt/drivetrain/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
      /opt/drivetrain/src \
 && rm -r /opt/drivetrain/src /opt/drivetrain/bin/drivetrain-launcher /opt/drivetrain/bin/drivetrain-snapshots

ENV PATH=/opt/drivetrain/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
CMD ["drivetrain-operator"]
