"""Which sources are there where this launcher runs?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from drivetrain.energy import nvml, processor
from drivetrain.energy.gain import Source
from drivetrain.energy.host import Host
from drivetrain_api.constants import ENV_POD_ROOT

log = logging.getLogger(__name__)

TREE_SECONDS: Final = 2.0
"""Between two looks at all of /proc, which take milliseconds."""


def sources(env: Mapping[str, str]) -> Sequence[Source]:
    """GPUs by NVML, and the host. Where pods are mere processes they share the machine's control group: then what
    descends from this process is the worker."""
    contained = not env.get(ENV_POD_ROOT) and processor.of_container() is not None
    worker = processor.of_container if contained else processor.Tree()
    reserved, every = (processor.limit(), 0.0) if contained else (None, TREE_SECONDS)
    host = Host(worker, processor.of_node, reserved, every)
    try:
        gpus = nvml.devices(env.get("CUDA_VISIBLE_DEVICES"))
    except nvml.NvmlError as error:
        log.warning("electricity of GPUs is not measured", extra={"reason": str(error)})
        gpus = []
    return (host, nvml.Gpus(gpus)) if gpus else (host,)
