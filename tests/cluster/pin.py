"""Moving the wrapper module of Kubernetes to another version: `python -m cluster.pin v1.36.3`.

Kubernetes names its own staging modules (k8s.io/api and so on) at v0.0.0 and replaces them by folders of its source,
which a module that depends on it must do by their published versions: v1.X.Y is v0.X.Y there.
"""

import json
import sys
import tempfile
from pathlib import Path

from cluster.binaries import BINARIES, WRAPPERS
from cluster.command import run


def pin_kubernetes(version: str) -> None:
    """Write go/kubernetes/go.mod and go.sum for `version`, as in `v1.36.3`."""
    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "go.mod").write_text("module elsewhere\n")
        download = ["go", "-C", elsewhere, "mod", "download", "-json", f"k8s.io/kubernetes@{version}"]
        source = json.loads(run(download, timeout=600))["Dir"]
    module = json.loads(run(["go", "mod", "edit", "-json", f"{source}/go.mod"]))
    staging = [each["Old"]["Path"] for each in module["Replace"]]
    tools = [each.package for each in BINARIES if each.wrapper == "kubernetes"]
    lines = [
        "module drivetrain.dev/cluster/kubernetes",
        f"go {module['Go']}",
        "tool (",
        *tools,
        ")",
        f"require k8s.io/kubernetes {version}",
        "replace (",
        *(f"{name} => {name} v0{version.removeprefix('v1')}" for name in staging),
        ")",
    ]
    wrapper = WRAPPERS / "kubernetes"
    (wrapper / "go.mod").write_text("\n".join(lines) + "\n")
    (wrapper / "go.sum").unlink(missing_ok=True)
    run(["go", "-C", str(wrapper), "mod", "tidy"], timeout=600)


if __name__ == "__main__":
    pin_kubernetes(sys.argv[1])
