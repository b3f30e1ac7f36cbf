"""What can be done to a pod besides reading and writing it? Bind it to a node, evict it, read its logs."""

from __future__ import annotations

import aiohttp
from aiohttp import web

from drivetrain_local.apiserver import errors
from drivetrain_local.apiserver.deletes import DeleteOptions, Deletes
from drivetrain_local.apiserver.kinds.pods import containers
from drivetrain_local.apiserver.resources import Resource
from drivetrain_local.apiserver.store import Store
from drivetrain_local.apiserver.writes import Writes
from drivetrain_local.objects import Obj, dig, meta, now, rfc3339

_CONNECT_SECONDS = 5.0


def bind(writes: Writes, resource: Resource, pod: Obj, binding: Obj) -> None:
    """What a scheduler does: give the pod its node, once."""
    name, node = meta(pod)["name"], dig(binding, "target", "name", default="")
    if not node:
        raise errors.invalid("Binding", "", name, [errors.required("target.name")])
    if meta(pod).get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise errors.conflict("pods/binding", "", name, why)
    if current := dig(pod, "spec", "nodeName"):
        raise errors.conflict("pods/binding", "", name, f'pod {name} is already assigned to node "{current}"')
    others = [c for c in dig(pod, "status", "conditions", default=[]) if c["type"] != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": rfc3339(now())}
    status = {**pod["status"], "conditions": [*others, scheduled]}
    writes.put_as_server(resource, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})


def evict(deletes: Deletes, resource: Resource, pod: Obj, eviction: Obj) -> None:
    """A deletion by another name."""
    options = DeleteOptions.parse(eviction.get("deleteOptions") or {}, {})
    deletes.delete(resource, meta(pod)["namespace"], meta(pod)["name"], options)


async def logs(
    request: web.BaseRequest, store: Store, pod: Obj, query: dict[str, str], token: str
) -> web.StreamResponse:
    """Stream a container's log from the node agent that runs it. Raises 400 for a wrong or missing container."""
    container = _container(pod, query.get("container", ""))
    node_name = dig(pod, "spec", "nodeName")
    if not node_name:
        return web.Response(text="")
    node = store.get("nodes", "", node_name)
    address = next(
        (a["address"] for a in dig(node, "status", "addresses", default=[]) if a["type"] == "InternalIP"), ""
    )
    port = dig(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port")
    if not address or not port:
        raise errors.ApiError(500, "InternalError", f'no node agent is known for node "{node_name}"')
    url = f"http://{address}:{port}/containerLogs/{meta(pod)['namespace']}/{meta(pod)['name']}/{container}"
    timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {token}", "X-Pod-Uid": meta(pod)["uid"]}
    passed = {key: value for key, value in query.items() if key != "container"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(url, params=passed) as answer,
        ):
            if answer.status != 200:
                text = await answer.text()
                raise errors.ApiError(answer.status, "BadRequest" if answer.status == 400 else "InternalError", text)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response
    except aiohttp.ClientError as error:
        raise errors.ApiError(500, "InternalError", f"Get {url!r}: {error}") from error


def _container(pod: Obj, wanted: str) -> str:
    known = [container["name"] for container in containers(pod["spec"])]
    main = [container["name"] for container in pod["spec"]["containers"]]
    if wanted and wanted not in known:
        raise errors.bad_request(f"container {wanted} is not valid for pod {meta(pod)['name']}")
    if wanted:
        return wanted
    if len(main) > 1:
        default = meta(pod).get("annotations", {}).get("kubectl.kubernetes.io/default-container", "")
        if default in main:
            return str(default)
        listed = " ".join(main)
        raise errors.bad_request(
            f"a container name must be specified for pod {meta(pod)['name']}, choose one of: [{listed}]"
        )
    return str(main[0])
