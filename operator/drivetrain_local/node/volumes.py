"""Where does a pod find its volumes? Below its own root directory, because there is no mount namespace without root.

`mountPath: /etc/drivetrain` becomes `$DRIVETRAIN_POD_ROOT/etc/drivetrain`. Programs that read mounted files prefix
that variable (it is empty or unset in a real pod); a program that does not will not find its mounts here. Arguments
that name a file below a mount are rewritten, so that `python /etc/drivetrain/script/train.py` finds the script.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from drivetrain_local.node.environment import ConfigError, Sources, field_value
from drivetrain_local.objects import Obj, dig

POD_ROOT = "DRIVETRAIN_POD_ROOT"
_MODE = 0o644


def materialise(pod: Obj, directory: Path, claims: Path, sources: Sources, pod_ip: str, node_ip: str) -> Path:
    """Write all volumes and link them into the pod's root. Returns the root. Raises ConfigError.

    `claims`: the folder of the namespace's PersistentVolumeClaims, each one a folder that outlives pods."""
    root = directory / "rootfs"
    root.mkdir(parents=True, exist_ok=True)
    made = {}
    for volume in pod["spec"].get("volumes") or []:
        if claim := dig(volume, "persistentVolumeClaim", "claimName"):
            made[volume["name"]] = _claimed(claim, claims, sources)
            continue
        made[volume["name"]] = _volume(pod, volume, directory / "volumes" / volume["name"], sources, pod_ip, node_ip)
    spec = pod["spec"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for mount in container.get("volumeMounts") or []:
            _mount(root, mount, made[mount["name"]])
    return root


def rooted(container: Obj, root: Path, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments, where those that are paths below one of the container's mounts lead to where it is here."""
    mounts = [os.path.normpath(mount["mountPath"]) for mount in container.get("volumeMounts") or []]

    def moved(argument: str) -> str:
        option, equals, path = argument.partition("=") if argument.startswith("-") else ("", "", argument)
        if any(path == mount or path.startswith(mount + "/") for mount in mounts):
            return f"{option}{equals}{inside(root, path)}"
        return argument

    return tuple(moved(argument) for argument in arguments)


def rooted_modules(container: Obj, root: Path, env: Mapping[str, str], of_image: Mapping[str, str]) -> dict[str, str]:
    """The environment, where such paths in PYTHONPATH, which nobody could prefix, lead to where they are here. The
    image's own are where they are: a checkout may lie below /tmp, and so may a mount."""
    if "PYTHONPATH" not in env:
        return dict(env)
    own = of_image.get("PYTHONPATH", "").split(os.pathsep)
    parts = env["PYTHONPATH"].split(os.pathsep)
    moved = [part if part in own else rooted(container, root, (part,))[0] for part in parts]
    return {**env, "PYTHONPATH": os.pathsep.join(moved)}


def place(root: Path, files: Mapping[str, Path]) -> None:
    """Link an image's own files into the pod's root, where no volume is mounted over them."""
    for path, source in files.items():
        target = inside(root, path)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


def remove(directory: Path) -> None:
    """Drop all that a pod left on disk."""
    shutil.rmtree(directory, ignore_errors=True)


def inside(root: Path, path: str) -> Path:
    """The place below the pod's root that an absolute path in the container means. `..` does not lead out."""
    return root / os.path.normpath("/" + path).lstrip("/")


def _volume(pod: Obj, volume: Obj, directory: Path, sources: Sources, pod_ip: str, node_ip: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "emptyDir" in volume or set(volume) == {"name"}:
        return directory
    parts = [volume]
    default_mode = _MODE
    if "projected" in volume:
        parts = volume["projected"].get("sources") or []
        default_mode = volume["projected"].get("defaultMode", _MODE)
    for part in parts:
        _write_part(pod, part, directory, sources, pod_ip, node_ip, default_mode)
    return directory


def _claimed(name: str, claims: Path, sources: Sources) -> Path:
    """A claim has to be there, as everywhere; the folder stays when it is deleted."""
    if ("PersistentVolumeClaim", name) not in sources.found:
        raise ConfigError(f'persistentvolumeclaim "{name}" not found')
    folder = claims / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _write_part(pod: Obj, part: Obj, directory: Path, sources: Sources, pod_ip: str, node_ip: str, mode: int) -> None:
    if downward := part.get("downwardAPI"):
        for item in downward.get("items") or []:
            text = field_value(pod, dig(item, "fieldRef", "fieldPath", default=""), pod_ip, node_ip)
            _write(directory, item["path"], text.encode(), item.get("mode", downward.get("defaultMode", mode)))
        return
    for kind, field, name_field in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
        source = part.get(field)
        if source is None:
            continue
        name = source.get(name_field) or source.get("name")
        data = sources.data(kind, name, optional=bool(source.get("optional")))
        items = source.get("items") or [{"key": key, "path": key} for key in data or {}]
        for item in items:
            if data is None or item["key"] not in data:
                if source.get("optional"):
                    continue
                raise ConfigError(f"references non-existent {kind.lower()} key: {item['key']}")
            file_mode = item.get("mode", source.get("defaultMode", mode))
            _write(directory, item["path"], data[item["key"]], file_mode)
        return
    unknown = ", ".join(sorted(set(part) - {"name"}))
    raise ConfigError(f"volume type {unknown} is not part of the embedded control plane; `make cluster` has it")


def _write(directory: Path, path: str, content: bytes, mode: int) -> None:
    target = inside(directory, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(mode)


def _mount(root: Path, mount: Obj, source: Path) -> None:
    if sub_path := mount.get("subPath"):
        source = inside(source, sub_path)
        if not source.exists():
            source.mkdir(parents=True)
    target = inside(root, mount["mountPath"])
    if target.is_symlink():
        if target.readlink() == source:
            return
        raise ConfigError(f"mountPath {mount['mountPath']!r} means two volumes; containers share one root here")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
