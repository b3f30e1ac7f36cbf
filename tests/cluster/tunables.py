"""Which kernel settings of the machine do the kubelets change, and what were they before?

The kubelet sets these for the whole machine when it starts. They are noted before, and put back by `down`.
"""

import json
from pathlib import Path

from cluster.layout import run_dir

TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def remember() -> None:
    """Note what they are."""
    values = {name: _file(name).read_text().strip() for name in TUNABLES if _file(name).exists()}
    _note().write_text(json.dumps(values, indent=2))


def restore() -> None:
    """Put back what was noted, if anything was."""
    if _note().exists():
        for name, value in json.loads(_note().read_text()).items():
            if _file(name).read_text().strip() != value:
                _file(name).write_text(value)


def _file(name: str) -> Path:
    return Path("/proc/sys") / name


def _note() -> Path:
    return run_dir() / "tunables.json"
