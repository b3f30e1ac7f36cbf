"""How does a pod live and end on a node? Phases, exit codes, logs, environment, volumes, grace.

Every script asks for its file paths below DRIVETRAIN_POD_ROOT, which is unset in a real container.
"""

from __future__ import annotations

from typing import Any

import pytest

from contract.kit import Obj, Server, config_map, pod
from harness.patience import patiently

_SLEEP = "import time; time.sleep(600)"
_PHASES_OVER = ("Succeeded", "Failed")


async def _run(server: Server, name: str, script: str, **spec: Any) -> Obj:
    """Run a script in a pod to its end."""
    await server.create("pods", pod(name, server.image, "python", "-c", script, **spec))
    return await server.until("pods", name, lambda p: p["status"].get("phase") in _PHASES_OVER)


async def _log(server: Server, name: str, *, status: int = 200, **query: str) -> str:
    async with server.http.get(server.address + server.path("pods", name, "log"), params=query) as answer:
        assert answer.status == status, await answer.text()
        return await answer.text()


def _condition(found: Obj, kind: str) -> Obj:
    return next((c for c in found["status"].get("conditions", []) if c["type"] == kind), {})


def _ended(found: Obj) -> Obj:
    state: Obj = found["status"]["containerStatuses"][0]["state"].get("terminated", {})
    return state


async def test_success(server: Server) -> None:
    done = await _run(server, "a", "print('hello')")
    assert done["status"]["phase"] == "Succeeded"
    assert (_ended(done)["exitCode"], _ended(done)["reason"]) == (0, "Completed")
    assert _ended(done)["startedAt"] <= _ended(done)["finishedAt"]
    assert _condition(done, "Ready")["status"] == "False"
    assert _condition(done, "Ready")["reason"] == "PodCompleted"
    assert _condition(done, "PodScheduled")["status"] == "True"
    assert done["spec"]["nodeName"]
    assert await _log(server, "a") == "hello\n"


async def test_failure(server: Server) -> None:
    done = await _run(server, "a", "import sys; print('oh', file=sys.stderr); sys.exit(3)")
    assert done["status"]["phase"] == "Failed"
    assert (_ended(done)["exitCode"], _ended(done)["reason"]) == (3, "Error")
    assert await _log(server, "a") == "oh\n"


async def test_a_running_pod_has_an_address_and_is_ready(server: Server) -> None:
    await server.create("pods", pod("a", server.image, "python", "-c", _SLEEP))
    running = await server.until("pods", "a", lambda p: _condition(p, "Ready").get("status") == "True")
    assert running["status"]["phase"] == "Running"
    assert running["status"]["podIP"] != running["status"]["hostIP"]
    assert running["status"]["podIPs"] == [{"ip": running["status"]["podIP"]}]
    status = running["status"]["containerStatuses"][0]
    assert (status["ready"], status["started"], status["restartCount"]) == (True, True, 0)
    assert "startedAt" in status["state"]["running"]


async def test_a_command_that_is_not_there(server: Server) -> None:
    await server.create("pods", pod("a", server.image, "no-such-command"))
    done = await server.until("pods", "a", lambda p: p["status"].get("phase") == "Failed")
    assert _ended(done)["reason"] in ("StartError", "ContainerCannotRun")
    assert _ended(done)["exitCode"] in (127, 128)
    assert "no-such-command" in _ended(done)["message"]


async def test_an_image_that_is_not_there(server: Server) -> None:
    await server.create("pods", pod("a", "registry.invalid/no-such-image:1", "python"))

    def waits(found: Obj) -> bool:
        statuses = found["status"].get("containerStatuses") or [{}]
        reason = statuses[0].get("state", {}).get("waiting", {}).get("reason")
        return reason in ("ErrImagePull", "ImagePullBackOff")

    waiting = await server.until("pods", "a", waits)
    assert waiting["status"]["phase"] == "Pending"
    await server.delete("pods", "a", {"gracePeriodSeconds": 1})
    await server.until_gone("pods", "a")


async def test_a_pod_that_fits_nowhere_says_why(server: Server) -> None:
    gpus = {"resources": {"limits": {"nvidia.com/gpu": "4000"}}}
    await server.create("pods", pod("a", server.image, "python", container=gpus))
    waiting = await server.until("pods", "a", lambda p: bool(_condition(p, "PodScheduled")))
    found = _condition(waiting, "PodScheduled")
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert "nodes are available: " in found["message"]
    assert "Insufficient nvidia.com/gpu" in found["message"]
    assert waiting["status"]["phase"] == "Pending"


async def test_sigterm_comes_first_and_the_exit_code_is_told(server: Server) -> None:
    script = (
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    await server.create("pods", pod("a", server.image, "python", "-c", script, terminationGracePeriodSeconds=60))
    await _until_logged(server, "a", "up")
    assert await _exit_code_at_deletion(server, "a") == 7


async def test_sigkill_comes_after_the_grace_period(server: Server) -> None:
    script = (
        "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    await server.create("pods", pod("a", server.image, "python", "-c", script, terminationGracePeriodSeconds=1))
    await _until_logged(server, "a", "up")
    assert await _exit_code_at_deletion(server, "a") == 137


async def _until_logged(server: Server, name: str, text: str) -> None:
    await server.until("pods", name, lambda p: p["status"].get("phase") == "Running")
    url = server.address + server.path("pods", name, "log")
    async with patiently(30), server.http.get(url, params={"follow": "true"}) as answer:
        async for line in answer.content:
            if text in line.decode():
                return
    raise AssertionError(f"{name} never said {text!r}")


async def _exit_code_at_deletion(server: Server, name: str) -> int:
    """Delete a pod and read the exit code of its container from the last state that a watch saw."""
    version = (await server.get("pods"))["metadata"]["resourceVersion"]
    await server.delete("pods", name)
    code = -1
    async with patiently(60):
        async for event in server.watch("pods", resourceVersion=version, fieldSelector=f"metadata.name={name}"):
            code = _ended(event["object"]).get("exitCode", code)
            if event["type"] == "DELETED":
                break
    return code


async def test_environment(server: Server) -> None:
    await server.create("configmaps", config_map("settings", FROM_MAP="m", single="s"))
    await server.create(
        "secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"token": "t"}}
    )
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(UNKNOWN)-$$(A)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "COLOR", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['color']"}}},
        {"name": "POD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "single"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "x", "optional": True}}},
    ]
    names = ["A", "B", "NAME", "POD_UID", "NS", "COLOR", "POD_ADDRESS", "NODE", "KEY", "TOKEN", "FROM_MAP", "NONE"]
    script = f"import os,sys; print('|'.join(str(os.environ.get(n)) for n in {names}), sys.argv[1])"
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "settings"}}], "args": ["$(A)$(A)"]}
    given = pod("a", server.image, "python", "-c", script, container=container)
    given["metadata"]["labels"] = {"color": "red"}
    made = await server.create("pods", given)
    done = await server.until("pods", "a", lambda p: p["status"].get("phase") in _PHASES_OVER)
    expect = ["1", "1-$(UNKNOWN)-$(A)", "a", made["metadata"]["uid"], server.namespace, "red"]
    expect += [done["status"]["podIP"], done["spec"]["nodeName"], "s", "t", "m", "None"]
    assert await _log(server, "a") == "|".join(expect) + " 11\n"


async def test_volumes(server: Server) -> None:
    await server.create("configmaps", config_map("files", {}, **{"a.txt": "A", "b.txt": "B"}))
    await server.create(
        "secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"token": "t"}}
    )
    downward = {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}
    volumes = [
        {"name": "map", "configMap": {"name": "files", "items": [{"key": "a.txt", "path": "sub/a.txt"}]}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "files"}}, {"secret": {"name": "hidden"}}, {"downwardAPI": downward}]}},
        {"name": "empty", "emptyDir": {}},
    ]  # fmt: skip
    mounts = [
        {"name": "map", "mountPath": "/etc/map"},
        {"name": "all", "mountPath": "/etc/all"},
        {"name": "empty", "mountPath": "/scratch"},
    ]
    script = (
        "import os; root = os.environ.get('DRIVETRAIN_POD_ROOT', '')\n"
        "open(root + '/scratch/x', 'w').write('kept')\n"
        "paths = ['/etc/map/sub/a.txt', '/etc/all/b.txt', '/etc/all/token', '/etc/all/name', '/scratch/x']\n"
        "print(*(open(root + path).read() for path in paths))"
    )
    done = await _run(server, "a", script, volumes=volumes, container={"volumeMounts": mounts})
    assert done["status"]["phase"] == "Succeeded", await _log(server, "a")
    assert await _log(server, "a") == "A B t a kept\n"


async def test_a_missing_config_map_is_waited_for(server: Server) -> None:
    env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]
    await server.create("pods", pod("a", server.image, "python", "-c", "pass", container={"env": env}))

    def waits(found: Obj) -> bool:
        statuses = found["status"].get("containerStatuses") or [{}]
        reason = statuses[0].get("state", {}).get("waiting", {}).get("reason")
        return bool(reason == "CreateContainerConfigError")

    await server.until("pods", "a", waits)
    await server.create("configmaps", config_map("late", k="v"))
    done = await server.until("pods", "a", lambda p: p["status"].get("phase") in _PHASES_OVER)
    assert done["status"]["phase"] == "Succeeded"


def _init(server: Server, name: str, script: str) -> Obj:
    return {
        "name": name,
        "image": server.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", script],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }


async def test_init_containers_run_first_and_in_order(server: Server) -> None:
    root = "__import__('os').environ.get('DRIVETRAIN_POD_ROOT', '') + '/shared/x'"
    inits = [_init(server, f"init-{n}", f"open({root}, 'a').write('{n}')") for n in (1, 2)]
    done = await _run(
        server,
        "a",
        f"print(open({root}).read())",
        initContainers=inits,
        volumes=[{"name": "shared", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
    )
    assert await _log(server, "a") == "12\n"
    codes = [s["state"]["terminated"]["exitCode"] for s in done["status"]["initContainerStatuses"]]
    assert codes == [0, 0]


async def test_a_failed_init_container_fails_the_pod(server: Server) -> None:
    inits = [_init(server, "init", "import sys; sys.exit(4)")]
    volumes = [{"name": "shared", "emptyDir": {}}]
    done = await _run(server, "a", "print('never')", initContainers=inits, volumes=volumes)
    assert done["status"]["phase"] == "Failed"
    assert done["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert _condition(done, "Initialized")["status"] == "False"


async def test_a_failed_container_is_restarted_on_failure(server: Server) -> None:
    script = (
        "import os,sys,time; path = os.environ.get('DRIVETRAIN_POD_ROOT', '') + '/keep/x'\n"
        "if not os.path.exists(path): open(path, 'w').close(); sys.exit('first')\n"
        "print('second', flush=True); time.sleep(600)"
    )
    given = pod(
        "a",
        server.image,
        "python",
        "-c",
        script,
        restartPolicy="OnFailure",
        volumes=[{"name": "keep", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "keep", "mountPath": "/keep"}]},
    )
    await server.create("pods", given)
    await server.until("pods", "a", lambda p: _restarts(p) == 1 and _condition(p, "Ready").get("status") == "True")
    await _until_logged(server, "a", "second")
    assert await _log(server, "a", previous="true") == "first\n"
    found = await server.get("pods", "a")
    assert found["status"]["phase"] == "Running"
    assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1


def _restarts(found: Obj) -> int:
    statuses = found["status"].get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


async def test_the_end_of_the_log_is_the_termination_message_on_request(server: Server) -> None:
    container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    done = await _run(server, "a", "raise ValueError('the reason')", container=container)
    assert "ValueError: the reason" in _ended(done)["message"]


async def test_logs(server: Server) -> None:
    await _run(server, "a", "for i in range(5): print('line', i)")
    assert await _log(server, "a", tailLines="2") == "line 3\nline 4\n"
    assert await _log(server, "a", tailLines="0") == ""
    assert await _log(server, "a", limitBytes="6") == "line 0"
    assert await _log(server, "a", sinceSeconds="3600", tailLines="1") == "line 4\n"
    stamped = (await _log(server, "a", timestamps="true")).splitlines()
    assert all(line.split(" ", 1)[0].endswith("Z") for line in stamped)
    assert stamped[0].split(" ", 1)[1] == "line 0"
    assert "b" in await _log(server, "a", container="b", status=400)
    assert await _log(server, "a", follow="true") == "".join(f"line {i}\n" for i in range(5))


async def test_logs_are_followed_to_the_end(server: Server) -> None:
    script = "import time\nfor i in range(3): print('line', i, flush=True); time.sleep(0.3)"
    await server.create("pods", pod("a", server.image, "python", "-c", script))
    await server.until("pods", "a", lambda p: p["status"].get("phase") in ("Running", *_PHASES_OVER))
    assert await _log(server, "a", follow="true") == "line 0\nline 1\nline 2\n"


async def test_one_of_several_containers_must_be_named(server: Server) -> None:
    given = pod("a", server.image, "python", "-c", "print('one')")
    second = {**given["spec"]["containers"][0], "name": "other", "command": ["python", "-c", "print('two')"]}
    given["spec"]["containers"].append(second)
    await server.create("pods", given)
    await server.until("pods", "a", lambda p: p["status"].get("phase") in _PHASES_OVER)
    assert "choose one of: [worker other]" in await _log(server, "a", status=400)
    assert await _log(server, "a", container="other") == "two\n"


async def test_a_budget_is_asked_before_an_eviction(server: Server) -> None:
    for name in ("a", "b"):
        body = pod(name, server.image, "python", "-c", _SLEEP, terminationGracePeriodSeconds=60)
        body["metadata"]["labels"] = {"app": "x"}
        await server.create("pods", body)
    for name in ("a", "b"):
        await server.until("pods", name, lambda p: _condition(p, "Ready").get("status") == "True")
    rules = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "one"}, "spec": rules}
    await server.create("poddisruptionbudgets", budget)
    if server.embedded is None:  # there, the arithmetic is done when it is asked for
        allowed = "disruptionsAllowed"
        await server.until("poddisruptionbudgets", "one", lambda b: b.get("status", {}).get(allowed) == 1)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction"}
    await server.call("POST", server.path("pods", "a", "eviction"), {**eviction, "metadata": {"name": "a"}})
    path, body = server.path("pods", "b", "eviction"), {**eviction, "metadata": {"name": "b"}}
    refused = await server.call("POST", path, body, status=429)
    assert refused["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused["details"]["causes"][0]["reason"] == "DisruptionBudget"
    await server.patch("poddisruptionbudgets", "one", {"spec": {"minAvailable": 0}})
    if server.embedded is None:
        await server.until("poddisruptionbudgets", "one", lambda b: b["status"].get("disruptionsAllowed") == 1)
    await server.call("POST", path, body)


async def test_a_service_leads_to_ready_pods(server: Server) -> None:
    serve = (
        "import http.server,os\n"
        "http.server.test(http.server.SimpleHTTPRequestHandler, port=8080, bind=os.environ['POD_ADDRESS'])"
    )
    env = [{"name": "POD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
    container = {"env": env, "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe}
    given = pod("web", server.image, "python", "-uc", serve, container=container, terminationGracePeriodSeconds=1)
    given["metadata"]["labels"] = {"app": "web"}
    await server.create("pods", given)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": "http"}]},
    }
    address = (await server.create("services", service))["spec"]["clusterIP"]
    await server.until("pods", "web", lambda p: _condition(p, "Ready").get("status") == "True")
    client = (
        "import time, urllib.request\n"
        "for _ in range(100):\n"
        "    try: print(urllib.request.urlopen('http://ADDRESS:8000/', timeout=5).status); break\n"
        "    except OSError: time.sleep(0.1)\n"
    ).replace("ADDRESS", address)
    await _run(server, "client", client)
    assert await _log(server, "client") == "200\n"


@pytest.mark.parametrize("kind", ["nodes"])
async def test_nodes_are_ready_and_say_what_they_have(server: Server, kind: str) -> None:
    nodes = (await server.call("GET", f"/api/v1/{kind}"))["items"]
    assert nodes
    for node in nodes:
        ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True"
        assert {"cpu", "memory", "pods"} <= set(node["status"]["allocatable"])
