"""Which servers keep the contract? The embedded plane always, and the cluster of DRIVETRAIN_CONTRACT_KUBECONFIG.

DRIVETRAIN_CONTRACT_IMAGE names an image there that has Python as `python` (default: drivetrain-worker).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from contract.kit import GROUP, WIDGET_CRD, Server, access
from drivetrain_local.cluster import LocalCluster
from harness.patience import patiently

_KUBECONFIG = os.environ.get("DRIVETRAIN_CONTRACT_KUBECONFIG", "")
_IMAGE = os.environ.get("DRIVETRAIN_CONTRACT_IMAGE", "drivetrain-worker")
_BACKENDS = ["embedded", *(["kubernetes"] if _KUBECONFIG else [])]
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(params=_BACKENDS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that keeps (or breaks) the contract, with a namespace of its own."""
    if request.param == "embedded":
        async with LocalCluster(tmp_path / "plane", nodes=2, gpus=1, crds=[WIDGET_CRD]) as cluster:
            headers = {"Authorization": f"Bearer {cluster.api.token}"}
            async with aiohttp.ClientSession(headers=headers) as http:
                yield await _prepared(
                    Server(http, cluster.api.address, cluster.kubeconfig, _fresh_name(), "drivetrain-worker", cluster)
                )
        return
    found = access(Path(_KUBECONFIG))
    connector = aiohttp.TCPConnector(ssl=found.tls)
    async with aiohttp.ClientSession(headers=found.headers, connector=connector) as http:
        server = Server(http, found.address, Path(_KUBECONFIG), _fresh_name(), _IMAGE)
        await server.call("POST", _CRDS, WIDGET_CRD, status=(201, 409))
        await _served(server)
        yield await _prepared(server)
        await server.call("DELETE", f"/api/v1/namespaces/{server.namespace}")


def _fresh_name() -> str:
    return f"contract-{secrets.token_hex(4)}"


async def _prepared(server: Server) -> Server:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": server.namespace}}
    await server.call("POST", "/api/v1/namespaces", namespace)
    # A real cluster admits pods only once the namespace has its service account, and tells watchers of its ConfigMap.
    if server.embedded is None:
        await server.until("serviceaccounts", "default", lambda account: True)
        await server.until("configmaps", "kube-root-ca.crt", lambda config_map: True)
    return server


async def _served(server: Server) -> None:
    async with patiently(30):
        while True:
            listed = await server.call("GET", f"/apis/{GROUP}/v1/widgets", status=(200, 404, 429, 503))
            if listed["kind"] == "WidgetList":
                return
            await asyncio.sleep(0.1)
