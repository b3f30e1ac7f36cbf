"""How does a text become a rule? By recursive descent over CEL's grammar, straight into functions of the variables."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivetrain_local.apiserver.cel import macros
from drivetrain_local.apiserver.cel.values import (
    BINARY,
    FUNCTIONS,
    METHODS,
    CelError,
    CelSyntaxError,
    CelUnsupported,
    contained,
    index,
    negated,
    select,
    truth,
)

Names = Mapping[str, Any]
Node = Callable[[Names], Any]
_MAX_TEXT: Final = 10_000
_MAX_DEPTH: Final = 30
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|0x[0-9a-fA-F]+|\d+)
    | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    | (?P<raw>[rR](?:'[^'\n]*'|"[^"\n]*"))
    | (?P<name>[A-Za-z_]\w*)
    | (?P<op>&&|\|\||==|!=|<=|>=|[<>!?:()\[\]{}.,+\-*/%])
    )""",
    re.X,
)
_LEVELS: Final = (("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"), ("*", "/", "%"))
"""Binary operators between && and the unary ones, from the loosest to the tightest."""
_CONSTANTS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_ESCAPES: Final = {"__underscores__": "__", "__dot__": ".", "__dash__": "-", "__slash__": "/"}
_KEYWORDS = re.compile(
    r"__(true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var"
    r"|void|while)__"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression."""

    text: str
    uses_old: bool
    """Whether it names oldSelf: a transition rule, which is for updates."""
    _node: Node

    def value(self, names: Names) -> Any:
        """What it is worth with these variables. Raises CelError."""
        try:
            return self._node(names)
        except RecursionError:
            raise CelError("operation cancelled: actual cost limit exceeded") from None

    def holds(self, names: Names) -> bool:
        """Its value as the boolean that a rule must have. Raises CelError."""
        return truth(self.value(names))


@functools.lru_cache(1024)
def compiled(text: str) -> Rule:
    """The rule of a text. Raises CelSyntaxError, CelUnsupported."""
    if len(text) > _MAX_TEXT:
        raise CelSyntaxError(f"expression of {len(text)} characters: at most {_MAX_TEXT} are read")
    parser = _Parser(text)
    node = parser.whole()
    return Rule(text, "oldSelf" in parser.used, node)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0
        self._bound: list[str] = ["self", "oldSelf"]
        self.used: set[str] = set()

    def whole(self) -> Node:
        node = self._choice()
        if self._peek():
            raise CelSyntaxError(f"Syntax error: unexpected {self._peek()!r}")
        return node

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise CelSyntaxError("Syntax error: unexpected end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _took(self, word: str) -> bool:
        if self._peek() == word and self._kind() in ("op", "name"):
            self._at += 1
            return True
        return False

    def _want(self, word: str) -> None:
        if not self._took(word):
            raise CelSyntaxError(f"Syntax error: want {word!r}, found {self._peek()!r}")

    def _choice(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise CelSyntaxError(f"expression is nested deeper than {_MAX_DEPTH}")
        condition = self._either()
        if self._took("?"):
            first = self._either()
            self._want(":")
            second = self._choice()
            test = condition
            condition = lambda names: first(names) if truth(test(names)) else second(names)  # noqa: E731
        self._depth -= 1
        return condition

    def _either(self) -> Node:
        node = self._both()
        while self._took("||"):
            node = macros.decided(node, self._both(), True)
        return node

    def _both(self) -> Node:
        node = self._binary(0)
        while self._took("&&"):
            node = macros.decided(node, self._binary(0), False)
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while self._peek() in _LEVELS[level] and self._kind() in ("op", "name"):
            node = _applied(BINARY[self._next()[1]], node, self._binary(level + 1))
        return node

    def _unary(self) -> Node:
        signs = []
        while self._kind() == "op" and self._peek() in ("!", "-"):
            signs.append(self._next()[1])
        node = self._member()
        for sign in reversed(signs):
            node = _applied((lambda value: not truth(value)) if sign == "!" else negated, node)
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._took("."):
                kind, name = self._next()
                if kind != "name":
                    raise CelSyntaxError(f"Syntax error: want a field, found {name!r}")
                node = self._call(name, node) if self._took("(") else _selected(node, _unescaped(name))
            elif self._took("["):
                node = _applied(index, node, self._choice())
                self._want("]")
            else:
                return node

    def _primary(self) -> Node:
        kind, word = self._next()
        match kind, word:
            case "number", _:
                number = float(word) if re.search(r"[.eE]", word) and "x" not in word else int(word, 0)
                return lambda _: number
            case "text" | "raw", _:
                text = word[2:-1] if kind == "raw" else _text(word[1:-1])
                return lambda _: text
            case "op", "(":
                node = self._choice()
                self._want(")")
                return node
            case "op", "[":
                items = self._arguments("]")
                return lambda names: [item(names) for item in items]
            case "op", "{":
                raise CelUnsupported("map literals")
            case "name", _ if word in _CONSTANTS:
                constant = _CONSTANTS[word]
                return lambda _: constant
            case "name", "has" if self._took("("):
                return self._has()
            case "name", _ if self._took("("):
                return self._call(word, None)
            case "name", _ if word in self._bound:
                self.used.add(word)
                return lambda names: names[word]
            case "name", _:
                raise CelSyntaxError(f"undeclared reference to '{word}' (in container '')")
            case _:
                raise CelSyntaxError(f"Syntax error: unexpected {word!r}")

    def _has(self) -> Node:
        """`has(a.b)`: whether a, which must be there, has b."""
        node = self._primary()
        field = ""
        while self._took("."):
            if field:
                node = _selected(node, field)
            kind, name = self._next()
            if kind != "name":
                raise CelSyntaxError(f"Syntax error: want a field, found {name!r}")
            field = _unescaped(name)
        if not field or not self._took(")"):
            raise CelSyntaxError("invalid argument to has() macro")
        return _applied(lambda value: contained(field, value), node)

    def _call(self, name: str, target: Node | None) -> Node:
        if target is not None and name in macros.MACROS:
            return self._macro(name, target)
        arguments = self._arguments(")")
        if target is not None:
            arguments.insert(0, target)
        if name not in FUNCTIONS and name not in METHODS:
            raise CelUnsupported(f"the function {name}")
        match len(arguments):
            case 1 if name in FUNCTIONS and (target is None or name == "size"):
                return _applied(FUNCTIONS[name], *arguments)
            case 2 if name in METHODS and target is not None:
                return _applied(METHODS[name], *arguments)
            case _:
                raise CelSyntaxError(f"found no matching overload for '{name}'")

    def _macro(self, name: str, target: Node) -> Node:
        kind, variable = self._next()
        self._want(",")
        if kind != "name" or variable in _CONSTANTS:
            raise CelSyntaxError("argument is not an identifier")
        self._bound.append(variable)
        bodies = self._arguments(")")
        self._bound.pop()
        if len(bodies) == 2 and name == "map":
            target, bodies = macros.MACROS["filter"](target, variable, bodies[0]), bodies[1:]
        if len(bodies) != 1:
            raise CelSyntaxError(f"found no matching overload for '{name}'")
        return macros.MACROS[name](target, variable, bodies[0])

    def _arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self._took(end):
            found.append(self._choice())
            if not self._took(","):
                self._want(end)
                break
        return found


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    end = len(text.rstrip())
    while position < end:
        token = _TOKEN.match(text, position)
        if token is None or token.lastgroup is None:
            raise CelSyntaxError(f"Syntax error: token recognition error at: {text[position : position + 20]!r}")
        found.append((token.lastgroup, token[token.lastgroup]))
        position = token.end()
    return found


def _applied(function: Callable[..., Any], *arguments: Node) -> Node:
    return lambda names: function(*(argument(names) for argument in arguments))


def _selected(node: Node, field: str) -> Node:
    return lambda names: select(node(names), field)


def _unescaped(name: str) -> str:
    """The property that a name stands for: rules write `self.__namespace__` and `self.a__dash__b`."""
    if keyword := _KEYWORDS.fullmatch(name):
        return keyword[1]
    return re.sub("|".join(_ESCAPES), lambda found: _ESCAPES[found[0]], name)


def _text(quoted: str) -> str:
    simple = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

    def read(found: re.Match[str]) -> str:
        escape = found[1]
        if escape[0] in "xu" and len(escape) > 1:
            return chr(int(escape[1:], 16))
        if escape[0].isalnum() and escape not in simple:
            raise CelSyntaxError(f"Syntax error: escape \\{escape}")
        return simple.get(escape, escape)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", read, quoted)
