"""PURE: how does a function of a notebook become a script? By its source, and that of what it uses.

A worker has a fresh interpreter, so nothing of this one's memory goes along. What a function uses from outside is sent
as what it was made by: modules and what they have are imported, functions and classes of the same notebook or file go
along by their source, plain values are written down. Anything else (a model, an open file, a variable of an enclosing
function) is refused by name, before anything is sent.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from drivetrain_cli.errors import UsageError

_FUTURE: Final = "from __future__ import annotations\n"
_MOST_TEXT: Final = 100_000
"""Characters of one value: more is data, and belongs elsewhere."""


def script_of(function: Callable[..., object], arguments: Mapping[str, Any]) -> str:
    """A script that calls the function with these arguments. Raises UsageError that names what cannot be sent."""
    plain = _plain_function(function)
    try:
        inspect.signature(plain).bind(**arguments)
    except TypeError as error:
        raise UsageError(f"arguments: {plain.__name__}: {error}") from error
    sent = _Sent(plain.__module__, plain.__globals__)
    sent.define(plain.__name__, plain)
    written = [f"{name}={_literal(value, f'arguments: {name}')}" for name, value in arguments.items()]
    call = f"    {plain.__name__}({', '.join(written)})\n"
    parts = [
        _FUTURE,
        "".join(sent.imports),
        "".join(sent.values),
        *sent.definitions,
        f'if __name__ == "__main__":\n{call}',
    ]
    return "\n".join(part for part in parts if part)


def folder_of(function: Callable[..., object]) -> Path:
    """Where modules beside it are looked for: its file's folder; of a notebook, the working folder."""
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(function)) or "")
    except TypeError:
        return Path.cwd()
    return path.parent if path.name and path.is_file() and path.suffix == ".py" else Path.cwd()


def _plain_function(function: Callable[..., object]) -> types.FunctionType:
    """Raises UsageError for what has no source of its own, or needs more than it."""
    if not isinstance(function, types.FunctionType):
        what = "a bound method" if isinstance(function, types.MethodType) else f"a {type(function).__name__}"
        raise UsageError(f"program: {function!r} is {what}; only a function written with `def` can be sent")
    if function.__name__ == "<lambda>":
        raise UsageError("program: a lambda cannot be sent; write it with `def`")
    found = inspect.unwrap(function)
    if not isinstance(found, types.FunctionType):
        raise UsageError(f"program: {function.__name__} wraps {found!r}, whose source cannot be sent")
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise UsageError(f"program: {found.__name__} is a generator or `async`: calling it would run nothing")
    if found.__code__.co_freevars:
        names = ", ".join(found.__code__.co_freevars)
        raise UsageError(
            f"program: {found.__name__} uses {names} of the function around it (a closure), which stays here: hand it "
            "over with arguments={…}, or make it global"
        )
    return found


class _Sent:
    """What goes along, in the order in which a script needs it."""

    def __init__(self, module: str, names: Mapping[str, Any]) -> None:
        self.imports: list[str] = []
        self.values: list[str] = []
        self.definitions: list[str] = []
        self._module = module
        self._names = names
        self._seen: set[str] = set()

    def define(self, name: str, found: Any) -> None:
        """A function or class, after what it uses."""
        self._seen.add(name)
        source = _source(name, found)
        for used in sorted(_globals_in(source)):
            self._use(used, name)
        self.definitions.append(f"\n{source}")

    def _use(self, name: str, user: str) -> None:
        if name in self._seen:
            return
        if name not in self._names:
            if hasattr(builtins, name):
                return
            raise UsageError(f"program: {user} uses {name}, which is not defined here")
        self._seen.add(name)
        value = self._names[name]
        if isinstance(value, types.ModuleType):
            self.imports.append(_import_of(name, value.__name__))
        elif isinstance(value, types.FunctionType | type) and value.__module__ == self._module:
            self._own(name, value, user)
        elif (where := _importable(value)) is not None:
            self.imports.append(f"from {where[0]} import {where[1]}{'' if where[1] == name else f' as {name}'}\n")
        else:
            self.values.append(f"{name} = {_literal(value, f'program: {user} uses {name}, which')}\n")

    def _own(self, name: str, value: Any, user: str) -> None:
        if isinstance(value, types.FunctionType):
            try:
                value = _plain_function(value)
            except UsageError as error:
                raise UsageError(f"program: {user} uses {name}: {error}") from error
        if value.__name__ != name:
            raise UsageError(f"program: {user} uses {value.__name__} by another name, {name}: use its own")
        self.define(name, value)


def _source(name: str, found: Any) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(found))
        tree = ast.parse(text)
    except (OSError, TypeError, SyntaxError) as error:
        raise UsageError(
            f"program: the source of {name} cannot be found ({error}): write it in a cell of a notebook, or in a file"
        ) from error
    first = tree.body[0] if tree.body else None
    if not isinstance(first, ast.FunctionDef | ast.ClassDef) or first.name != name:
        raise UsageError(f"program: the source of {name} is not that of a `def` or `class` of this name")
    return text


def _globals_in(source: str) -> set[str]:
    """Names that a definition takes from its module: in its body, defaults, bases and decorators."""
    table = symtable.symtable(_FUTURE + source, "<sent>", "exec")
    assigned = {each.get_name() for each in table.get_symbols() if each.is_assigned()}
    here = {each.get_name() for each in table.get_symbols() if each.is_referenced()}
    inside = {name for child in table.get_children() for name in _free(child)}
    return (here | inside) - assigned - {"annotations"}


def _free(table: symtable.SymbolTable) -> Iterator[str]:
    for each in table.get_symbols():
        if each.is_global() and each.is_referenced():
            yield each.get_name()
    for child in table.get_children():
        yield from _free(child)


def _import_of(name: str, module: str) -> str:
    if module == "__main__":
        raise UsageError(f"program: {name} is this very program, which a worker does not have")
    return f"import {module}\n" if module == name else f"import {module} as {name}\n"


def _importable(value: Any) -> tuple[str, str] | None:
    """(module, name) by which a fresh interpreter finds the very same thing."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not name.isidentifier() or module == "__main__":
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is value else None


def _literal(value: Any, what: str) -> str:
    """Python text that makes the value. Raises UsageError that begins with `what`."""
    text = repr(value)
    if len(text) > _MOST_TEXT:
        raise UsageError(f"{what} has {len(text)} characters: put data into a file that workers see")
    if text in ("inf", "-inf", "nan"):
        return f"float({text!r})"
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise UsageError(
            f"{what} is {_a(type(value))}, and cannot be sent: only modules, functions, classes, and plain values "
            "(numbers, text, None, and lists, tuples, sets and dicts of them) can; make it inside of the function"
        )
    return text


def _a(kind: type) -> str:
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
