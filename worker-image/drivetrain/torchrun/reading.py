"""Does a program use drivetrain? Found out by reading it (ADR 0045), with the modules beside it that it imports.

Nothing is run. What is read is bounded, so that a folder with a thousand modules does not hold up the start of a job.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from drivetrain.torchrun.program import Program

_NAME: Final = "drivetrain"
_ADAPTERS: Final = "drivetrain.integrations."
"""Made for scripts that are run as under torchrun, to tell their progress."""
_FILES: Final = 200
_BYTES: Final = 1 << 20


def uses_drivetrain(program: Program, folder: Path, path: str = "") -> bool | None:
    """None if that cannot be read. `folder`: where it is started; `path`: its PYTHONPATH."""
    roots = [folder / part for part in path.split(os.pathsep) if part]
    if program.kind == "code":
        return _reads(_Source(None, program.target), [folder, *roots])
    if program.kind == "module":
        found = next((file for root in (folder, *roots) for file in _files(root, program.target, entry=True)), None)
        return None if found is None else _reads(_Source(found), [folder, *roots])
    if program.kind == "script":
        script = folder / program.target
        return _reads(_Source(script), [script.parent, *roots])
    return None


class _Source:
    """A piece of Python, and what it imports."""

    def __init__(self, file: Path | None, text: str | None = None) -> None:
        self.file = file
        self._text = text

    def tree(self) -> ast.Module | None:
        """None if it cannot be read, or is no Python: the interpreter will say so itself."""
        try:
            if self.file is None:
                return ast.parse(self._text or "")
            with self.file.open("rb") as opened:
                return ast.parse(opened.read(_BYTES))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _reads(first: _Source, roots: Sequence[Path]) -> bool | None:
    waiting, seen = [first], {first.file}
    for source in waiting:
        tree = source.tree()
        if tree is None:
            if source is first:
                return None
            continue
        for name, base in _imported(tree, source.file):
            if base is None and name.partition(".")[0] == _NAME:
                if not f"{name}.".startswith(_ADAPTERS):
                    return True
                continue  # what they import is no word of the script's
            for root in roots if base is None else (base,):
                for file in _files(root, name):
                    if file not in seen and len(seen) < _FILES:
                        seen.add(file)
                        waiting.append(_Source(file))
    return False


def _imported(tree: ast.Module, file: Path | None) -> Iterator[tuple[str, Path | None]]:
    """Names of modules, each with the folder that a relative one begins in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = None
            if node.level:
                if file is None:
                    continue
                base = file.parents[node.level - 1] if node.level <= len(file.parents) else None
                if base is None:
                    continue
            # `from package import module` may mean a file of its own.
            if not (base is None and node.module == _NAME and all(each.name == "integrations" for each in node.names)):
                yield node.module or "", base
            yield from ((f"{node.module}.{alias.name}" if node.module else alias.name, base) for alias in node.names)
        elif isinstance(node, ast.Constant) and node.value == _NAME:
            yield _NAME, None  # importlib.import_module("drivetrain")


def _files(root: Path, name: str, *, entry: bool = False) -> Iterator[Path]:
    """The files that `import name` would run below `root`: those of its packages, too. `entry`: as `python -m name`."""
    parts = [part for part in name.split(".") if part]
    folder = root
    for part in parts[:-1]:
        folder = folder / part
        if (init := folder / "__init__.py").is_file() and not entry:
            yield init
    if not parts:
        return
    ends = ("__main__.py",) if entry else ("__init__.py",)
    for file in (folder / f"{parts[-1]}.py", *(folder / parts[-1] / end for end in ends)):
        if file.is_file():
            yield file
