"""The project's own images, from its own Dockerfiles: what the end-to-end tests install.

Both Dockerfiles take the Python image to start from as the build argument PYTHON_IMAGE; here that is the debootstrap
stand-in. A Dockerfile that installs `requirements/*.txt` before it copies any source is rebuilt in seconds.
"""

from pathlib import Path

from cluster.images import build, python_base

CHECKOUT = Path(__file__).parents[2]
# What the chart's default values and the examples mean: they are tested as they are, without a changed line.
OPERATOR_IMAGE = "docker.io/library/drivetrain-operator:0.1.0"
WORKER_IMAGE = "docker.io/library/drivetrain-worker:latest"
DOCKERFILES = {OPERATOR_IMAGE: CHECKOUT / "Dockerfile", WORKER_IMAGE: CHECKOUT / "worker-image" / "Dockerfile"}


def build_images() -> list[str]:
    """Build both (the worker's takes some six minutes the first time, nearly all of it torch); returns their names."""
    base = python_base()
    return [build(name, file, CHECKOUT, {"PYTHON_IMAGE": base}) for name, file in DOCKERFILES.items()]
