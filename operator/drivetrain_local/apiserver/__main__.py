"""`python -m drivetrain_local.apiserver`: the API server as a process of its own, as `up.py` starts it."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from drivetrain_api.logs import LogSettings, configure, from_environment
from drivetrain_local.cluster import claim_server
from drivetrain_local.signals import until_told_to_stop


async def _serve(state: Path, crds: list[Path]) -> None:
    server, _ = await claim_server(state, crds=crds)
    try:
        server.write_kubeconfig(state / "kubeconfig")
        await until_told_to_stop()
    finally:
        await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="drivetrain-local-apiserver", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory of this plane; gets the kubeconfig")
    parser.add_argument("--crds", type=Path, action="append", default=[], help="file or directory of CRDs to serve")
    args = parser.parse_args()
    configure("apiserver", from_environment(os.environ, LogSettings(level="warning")))
    asyncio.run(_serve(args.state, args.crds))


if __name__ == "__main__":
    main()
