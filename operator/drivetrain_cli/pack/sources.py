"""Which files travel with a job? The program, and what it imports from beside it; or a whole folder.

Modules and packages that lie beside a script are imported by it, because people split scripts: they go along without
being asked for. What is installed does not: it belongs into an image or a requirements file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivetrain_cli.errors import UsageError

MAX_BYTES: Final = 900_000
"""A ConfigMap holds 1 MiB; the rest is for its metadata and JSON's escapes."""
MAX_FILES: Final = 1000
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules"})
_ELSEWHERE: Final = "put it into --image, or on a --volume"


@dataclass(frozen=True, slots=True)
class Code:
    """A program with its files."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path, relative to the folder that Python finds modules in. A script's own comes first."""
    script: str | None = None
    """The script's path in `files`, or ..."""
    module: str | None = None
    """... the name of the module that is run (`python -m`)."""


def read(target: Path, folder: Path | None = None) -> Code:
    """A script with what it imports from beside it; a folder with a `__main__.py` (as `python FOLDER` runs it); with
    `folder`, all that is in there, and the script is one of its files. Raises UsageError."""
    if folder is not None:
        every = _whole(folder)
        inside = target if (folder / target).is_file() else _relative(target, folder)
        if inside is None or inside.as_posix() not in every:
            raise UsageError(f"--folder: there is no {target} in {folder}")
        return _bounded(Code(_first(inside.as_posix(), every), script=inside.as_posix()))
    if target.is_dir():
        if not (target / "__main__.py").is_file():
            found = ", ".join(sorted(path.name for path in target.glob("*.py"))[:5])
            raise UsageError(
                f"{target}: a folder is run by its __main__.py, and has none. Say which script: --folder {target} "
                f"{found or 'train.py'}"
            )
        return _bounded(Code(_first("__main__.py", _whole(target)), script="__main__.py"))
    return _bounded(Code(_gathered([target], target.parent), script=target.name))


def read_text(name: str, text: str, root: Path) -> Code:
    """A script that is on no disk, with what it imports from `root`. Raises UsageError."""
    content = text.encode()
    files = {name: content, **_gathered(_found(Path(name), content, root), root)}
    return _bounded(Code(files, script=name))


def read_module(name: str, root: Path, folder: Path | None = None) -> Code:
    """The module that `python -m` finds in `root`, with what it imports from there. Raises UsageError."""
    root = folder or root
    path = Path(*name.split("."))
    entry = next((each for each in (path.with_suffix(".py"), path / "__main__.py") if (root / each).is_file()), None)
    if entry is None or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"-m: {name}: neither {path.with_suffix('.py')} nor {path / '__main__.py'} is in {root}")
    if folder is not None:
        return _bounded(Code(_whole(folder), module=name))
    package = list(_walk(root / entry.parts[0])) if len(entry.parts) > 1 else []
    return _bounded(Code(_gathered([root / entry, *package], root), module=name))


def _gathered(waiting: list[Path], root: Path) -> dict[str, bytes]:
    """These files, and what they import from `root`."""
    files: dict[str, bytes] = {}
    while waiting:
        path = waiting.pop(0)
        name = path.relative_to(root).as_posix()
        if name in files:
            continue
        files[name] = _content(path)
        waiting.extend(_found(path, files[name], root) if path.suffix == ".py" else ())
    return files


def _found(path: Path, content: bytes, root: Path) -> list[Path]:
    """Files in `root` that a module imports."""
    found: list[Path] = []
    for module in sorted(_imported(path, content)):
        top = module.partition(".")[0]
        # As Python looks for them: a package comes before a module.
        if _is_package(root, module):
            found.extend(_walk(root / top))
        elif (root / f"{top}.py").is_file():
            found.append(root / f"{top}.py")
    return found


def _is_package(root: Path, module: str) -> bool:
    """A folder without `__init__.py` is one only where it has the module: it may be data that is named as a library."""
    top = root / module.partition(".")[0]
    if (top / "__init__.py").is_file():
        return True
    inner = root.joinpath(*module.split("."))
    return "." in module and top.is_dir() and (inner.with_suffix(".py").is_file() or inner.is_dir())


def _whole(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise UsageError(f"--folder: {folder} is no folder")
    return {path.relative_to(folder).as_posix(): _content(path) for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    """Files, without what is hidden, made by Python, or an environment."""
    count = 0
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            raise UsageError(f"{here}: {error}") from error
        for path in entries:
            if path.name.startswith(".") or path.name in _LEFT_OUT or path.suffix == ".pyc":
                continue
            if path.is_dir():
                if not path.is_symlink() and not (path / "pyvenv.cfg").exists():
                    waiting.append(path)
            elif path.is_file():
                count += 1
                if count > MAX_FILES:
                    raise UsageError(f"{folder}: more than {MAX_FILES} files; {_ELSEWHERE}")
                yield path


def _first(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name], **files}


def _relative(path: Path, folder: Path) -> Path | None:
    try:
        return path.resolve().relative_to(folder.resolve())
    except ValueError:
        return None


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes, a ConfigMap takes {MAX_BYTES}; {_ELSEWHERE}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error}") from error


def _bounded(code: Code) -> Code:
    for name in code.files:
        if not re.fullmatch(r"[-._a-zA-Z0-9/]+", name):
            raise UsageError(f"{name}: a ConfigMap's key has only letters, digits, '-', '_' and '.': rename it")
    size = sum(len(content) for content in code.files.values())
    if size > MAX_BYTES:
        largest = sorted(code.files, key=lambda name: -len(code.files[name]))[:3]
        raise UsageError(
            f"{len(code.files)} files, {size} bytes ({', '.join(largest)}, …): a ConfigMap takes {MAX_BYTES}; put them "
            "into --image, or on a --volume"
        )
    return code


def _imported(path: Path, content: bytes) -> set[str]:
    """Names of modules that a file imports; of `from package import name`, also `package.name`."""
    try:
        tree = ast.parse(content, str(path))
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
