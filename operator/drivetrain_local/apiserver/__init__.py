"""A small Kubernetes API server in one event loop: real semantics, in memory, over plain HTTP on loopback.

In a test:

    from drivetrain_local.apiserver import ApiServer, Fault

    async with ApiServer(crds=[Path("crds")]) as api:               # a directory, files or parsed CRDs
        api.write_kubeconfig(tmp_path / "kubeconfig")               # for kubectl, kopf, the official client
        async with api.session() as http:                           # aiohttp, token and base URL set
            await http.post("/api/v1/namespaces/default/pods", json=pod)
        api.faults.add(Fault(verb="create", resource="pods", error=503, times=2))
        api.faults.add(Fault(verb="patch", subresource="status", when="after", drop=True))
        api.faults.break_watches("pods")                            # sever open watches in mid-stream
        api.compact()                                               # older resourceVersions and continue tokens: 410
        api.faults.writes()                                         # every write seen, in order
        api.store.get("pods", "default", "a")                       # look behind the HTTP surface

`api.address` is http://host:port, to be used with `Authorization: Bearer {api.token}`; `api.url` has the token in its
path as well, because kubectl sends no bearer token over plain HTTP. Storage keys are `pods`,
`drivetrain.dev/trainingjobs`.

Served: list, watch, create, update, patch (merge, JSON, strategic), delete, deletecollection, status and scale
subresources, pods/{log,binding,eviction}, CRDs with their bounds and their rules in CEL, discovery, tables, OpenAPI v3.
NOT there: RBAC, admission, server-side apply. What Kubernetes has and this has not answers 501 and names
`make cluster`; so does a CRD with something that would not be enforced. Nothing runs pods here: that is
`drivetrain_local.node`.
"""

from __future__ import annotations

from drivetrain_local.apiserver.faults import Fault, Faults, RequestSeen
from drivetrain_local.apiserver.server import ApiServer

__all__ = ["ApiServer", "Fault", "Faults", "RequestSeen"]
