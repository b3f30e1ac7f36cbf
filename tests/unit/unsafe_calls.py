"""Which lines of our code could run what somebody sent? Found in the syntax tree, by what names mean there.

What a file may do nevertheless stands in `ALLOWED`, with the reason: by file and name, so that nothing else slips in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple


class Found(NamedTuple):
    """One such line."""

    line: int
    name: str
    why: str


_UNPICKLES: Final = "runs what the bytes that it reads name"
_RUNS_TEXT: Final = "runs text as code"
_SHELL: Final = "gives text to a shell"

MODULES: Final = {
    **dict.fromkeys(("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "joblib"), _UNPICKLES),
    "marshal": "reads code",
    "multiprocessing.managers": "unpickles what comes over a socket",
    "multiprocessing.connection.Listener": "unpickles what comes over a socket",
    "multiprocessing.connection.Client": "unpickles what comes over a socket",
    "xmlrpc": "is not made for what strangers send",
}
"""That must not be imported, nor a name of them."""

CALLS: Final = {
    **dict.fromkeys(("eval", "exec", "builtins.eval", "builtins.exec", "code.interact"), _RUNS_TEXT),
    **dict.fromkeys(
        ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
        _SHELL,
    ),
    "asyncio.create_subprocess_shell": _SHELL,
    **dict.fromkeys(
        ("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"), "makes any object"
    ),
    **dict.fromkeys(("pandas.read_pickle", "torch.package.PackageImporter"), _UNPICKLES),
}
COLLECTIVES: Final = (
    *("broadcast_object_list", "all_gather_object", "gather_object", "scatter_object_list"),
    *("send_object_list", "recv_object_list"),
)
"""Of torch.distributed: they unpickle what ranks send."""
_YAML_LOADERS: Final = ("SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader")

ALLOWED: Final[dict[str, dict[str, str]]] = {
    "worker-image/drivetrain/checkpoint.py": {"pickle.UnpicklingError": "an exception, which torch.load raises"},
    "worker-image/drivetrain/torchrun/script.py": {
        "exec": "the script that spec.command names, in a process of its own"
    },
    "worker-image/brought/first/sitecustomize.py": {
        "exec": "the sitecustomize of the image itself, which Python would have run in its place"
    },
    "tests/unit/runtime/together.py": {
        "pickle": "results of the test's own child processes, over its own pipes",
    },
    "tests/unit/runtime/test_absent.py": {"pickle": "tries out what a script may do to its own model"},
    "tests/unit/runtime/test_seen.py": {
        "pickle": "tries out what a script may do to its own model",
        "torch.load": "tries out what a script may do to its own model",
    },
    "tests/unit/runtime/test_wire.py": {"pickle": "shows that its bytes are refused"},
    "tests/unit/runtime/test_injected.py": {"pickle": "shows that its bytes are refused"},
    "tests/unit/runtime/test_backend.py": {"all_gather_object": "torch's own, over our backend, as scripts may use it"},
    "tests/unit/runtime/test_programs.py": {"exec": "scripts that the test has made up"},
    "tests/unit/runtime/zygote.py": {"exec": "scripts of the test, from its own socketpair"},
    "tests/harness/nursery.py": {"exec": "the script of a test's own rank, which its launcher names over a socketpair"},
}
"""By file and name: why it is no danger."""


def unsafe(source: str) -> list[Found]:
    """All such lines of a module."""
    tree = ast.parse(source)
    return sorted(found for each in (_imports(tree), _calls(tree, _names(tree))) for found in each)


def unsafe_here(root: Path, path: Path) -> list[str]:
    """Of a file of ours, but for what it may do: for people."""
    allowed = ALLOWED.get(str(path.relative_to(root)), {})
    return [
        f"{path.relative_to(root)}:{found.line}: {found.name} {found.why}"
        for found in unsafe(path.read_text())
        if found.name not in allowed
    ]


def _imported(tree: ast.AST) -> Iterator[tuple[ast.stmt, str, str]]:
    """Statement, what it imports, and the name that this has then."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield node, alias.name, bound
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}", alias.asname or alias.name


def _imports(tree: ast.AST) -> Iterator[Found]:
    for statement, name, _ in _imported(tree):
        for module, why in MODULES.items():
            if f"{name}.".startswith(f"{module}."):
                yield Found(statement.lineno, name, why)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func, {}) in ("__import__", "importlib.import_module"):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and named.value in MODULES:
                yield Found(node.lineno, str(named.value), MODULES[str(named.value)])


def _names(tree: ast.AST) -> dict[str, str]:
    """What the names of a module stand for."""
    found = {}
    for statement, name, bound in _imported(tree):
        whole = isinstance(statement, ast.Import) and all(alias.asname != bound for alias in statement.names)
        found[bound] = bound if whole else name
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """A name as it is outside of the module; empty for what is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        return f"{before}.{node.attr}" if before else f"?.{node.attr}"
    return ""


def _safe_loaders(tree: ast.AST, names: dict[str, str]) -> set[str]:
    """Of YAML: its own, and what a module makes of them."""
    found = {f"yaml.{name}" for name in _YAML_LOADERS}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and {_dotted(base, names) for base in node.bases} & found:
            found.add(node.name)
    return found


def _calls(tree: ast.AST, names: dict[str, str]) -> Iterator[Found]:
    safe = _safe_loaders(tree, names)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _dotted(node.func, names)
        given = {each.arg: each.value for each in node.keywords}
        last = name.rpartition(".")[2]
        if name in CALLS:
            yield Found(node.lineno, name, CALLS[name])
        if last in COLLECTIVES:
            yield Found(node.lineno, last, "unpickles what other ranks send")
        if "shell" in given and not _is(given["shell"], False):
            yield Found(node.lineno, name, _SHELL)
        if "allow_pickle" in given and not _is(given["allow_pickle"], False):
            yield Found(node.lineno, name, _UNPICKLES)
        if name in ("torch.load", "torch.serialization.load") and not _is(given.get("weights_only"), True):
            yield Found(node.lineno, name, f"without weights_only=True {_UNPICKLES}")
        if name in ("yaml.load", "yaml.load_all"):
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or _dotted(loader, names) not in safe:
                yield Found(node.lineno, name, "makes any object, but for a SafeLoader")


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
