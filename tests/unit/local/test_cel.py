"""Is an expression worth here what CEL says, and is a CRD refused whose rules nobody here understands?"""

from __future__ import annotations

from typing import Any

import pytest

from drivetrain_local.apiserver import ApiServer
from drivetrain_local.apiserver.cel import CelError, CelSyntaxError, CelUnsupported, compiled
from drivetrain_local.apiserver.cel_rules import judge
from drivetrain_local.apiserver.crd_schema import validate
from drivetrain_local.apiserver.errors import ApiError

Obj = dict[str, Any]
_SELF: Obj = {"n": 3, "x": 1.5, "s": "a-b", "l": [1, 2], "m": {"k": "v"}, "o": {}, "b": True, "nil": None,
              "namespace": 1, "a-b": 2, "__": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("1 == 1.0", True),
        ("true == 1", False),
        ("!false && !!true", True),
        ("'a' < 'b' && 1 < 2", True),
        ("'it\\'s' + \"\\n\" + r'\\n'", "it's\n\\n"),
        ("true ? 1 : false ? 2 : 3", 1),
        ("false ? 1 : false ? 2 : 3", 3),
        ("self.n in [1, 2, 3]", True),
        ("'k' in self.m && !('z' in self.m)", True),
        ("self.m['k'] + string(self.l[0])", "v1"),
        ("has(self.m.k) && !has(self.o.k)", True),
        ("has(self.gone.k)", CelError),
        ("self.o.k == 1", CelError),
        ("self.o.k == 1 || true", True),
        ("true || self.o.k == 1", True),
        ("self.o.k == 1 && false", False),
        ("self.o.k == 1 || false", CelError),
        ("self.n && true", CelError),
        ("self.n == 3 ? true : self.o.k", True),
        ("size(self.s) == 3 && self.l.size() == 2", True),
        ("self.s.matches('^[a-z]-b$')", True),
        ("'a-b\\n'.matches('^a-b$')", False),
        ("self.s.startsWith('a') && self.s.endsWith('b') && self.s.contains('-')", True),
        ("self.l.all(i, i > 0) && self.l.exists(i, i == 2) && self.l.exists_one(i, i == 1)", True),
        ("self.l.map(i, i * 2)", [2, 4]),
        ("self.l.map(i, i > 1, i * 2)", [4]),
        ("self.l.filter(i, i > 1)", [2]),
        ("self.m.all(k, self.m[k] == 'v')", True),
        ("self.__namespace__ + self.a__dash__b + self.__underscores__", 6),
        ("int('4') + 1 == 5 && double(1) == 1.0", True),
        ("self.nil == null", True),
        ("1 + 1.0", CelError),
        ("1 / 0", CelError),
        ("9223372036854775807 + 1", CelError),
        ("self.l[2]", CelError),
        ("'a' < 1", CelError),
        ("self.n.size()", CelError),
        ("[1, [2]] == [1.0, [2]]", True),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    if isinstance(value, type):
        with pytest.raises((CelError, CelSyntaxError, CelUnsupported)):
            compiled(text).value({"self": _SELF})
    else:
        found = compiled(text).value({"self": _SELF})
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["", "1 +", "self.", "(1", "nobody == 1", "[1, 2].all(1, true)", "self has x", "'open", "has(self)",
             "x == 1", "string(self.n, 1)", "self.n.string()", "(" * 200 + "1" + ")" * 200, "1" * 20_000]
)  # fmt: skip
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(CelSyntaxError):
        compiled(text)


@pytest.mark.parametrize("text", ["duration('1h') > duration('1m')", "{'a': 1}.size() == 1", "self.l.sum() == 3"])
def test_what_only_a_real_server_understands(text: str) -> None:
    with pytest.raises(CelUnsupported):
        compiled(text)


def test_a_chain_that_is_too_long_has_no_value() -> None:
    with pytest.raises(CelError):
        compiled("||".join(["false"] * 1300)).value({})


def _schema(*rules: Obj, **fields: Obj) -> Obj:
    return {"type": "object", "properties": {"spec": {
        "type": "object", "properties": fields, "x-kubernetes-validations": list(rules)}}}  # fmt: skip


def _of(spec: Any) -> Obj:
    return {"metadata": {"name": "a"}, "spec": spec}


_SMALL: Obj = {"rule": "self.n < 3", "message": "too big"}
_FIXED: Obj = {"rule": "self.n == oldSelf.n", "message": "fixed"}
_ITEMS: Obj = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
               "items": {"type": "object", "x-kubernetes-validations": [_FIXED]}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "schema", "spec", "old", "told"),
    [
        ("kept", _schema(_SMALL), {"n": 2}, None, []),
        ("broken", _schema(_SMALL), {"n": 3}, None, ["spec: Invalid value: too big"]),
        ("no message", _schema({"rule": "self.n < 3"}), {"n": 3}, None,
         ["spec: Invalid value: failed rule: self.n < 3"]),
        ("a message by rule", _schema({**_SMALL, "messageExpression": "'not ' + string(self.n)"}), {"n": 3}, None,
         ["spec: Invalid value: not 3"]),
        ("a message that fails", _schema({**_SMALL, "messageExpression": "self.none"}), {"n": 3}, None,
         ["spec: Invalid value: too big"]),
        ("a place and a reason", _schema({**_SMALL, "fieldPath": ".n", "reason": "FieldValueForbidden"}),
         {"n": 3}, None, ["spec.n: Forbidden: too big"]),
        ("no value", _schema(_SMALL), {}, None,
         ['spec: Invalid value: "object": no such key: n evaluating rule: too big']),
        ("no old one", _schema(_FIXED), {"n": 1}, None, []),
        ("unchanged", _schema(_FIXED), {"n": 1}, {"n": 1}, []),
        ("changed", _schema(_FIXED), {"n": 2}, {"n": 1}, ["spec: Invalid value: fixed"]),
        ("as it was", _schema(_SMALL), {"n": 3}, {"n": 3}, []),
        ("still broken", _schema(_SMALL), {"n": 4}, {"n": 3}, ["spec: Invalid value: too big"]),
        ("of a leaf", _schema(n={"x-kubernetes-validations": [{"rule": "self < 3", "message": "m"}]}),
         {"n": 3}, None, ["spec.n: Invalid value: 3: m"]),
        ("of items by key", _schema(l=_ITEMS), {"l": [{"k": 2, "n": 1}, {"k": 1, "n": 1}]},
         {"l": [{"k": 1, "n": 0}, {"k": 2, "n": 1}]}, ["spec.l[1]: Invalid value: fixed"]),
        ("of a map", _schema(m={"type": "object", "additionalProperties": {
            "type": "integer", "x-kubernetes-validations": [{"rule": "self < 3", "message": "m"}]}}),
         {"m": {"k": 3}}, None, ["spec.m[k]: Invalid value: 3: m"]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_findings(name: str, schema: Obj, spec: Obj, old: Obj | None, told: list[str]) -> None:
    assert [str(finding) for finding in judge(_of(spec), old and _of(old), schema, [])] == told


def test_bounds_forgive_what_an_update_left_alone() -> None:
    schema = _schema(n={"type": "integer", "maximum": 2}, m={"type": "integer"})
    assert [f.field for f in validate(_of({"n": 3, "m": 2}), schema)] == ["spec.n"]
    assert validate(_of({"n": 3, "m": 2}), schema, _of({"n": 3, "m": 1})) == []
    assert [f.field for f in validate(_of({"n": 4, "m": 1}), schema, _of({"n": 3, "m": 1}))] == ["spec.n"]


def _crd(schema: Obj) -> Obj:
    return {
        "metadata": {"name": "things.test"},
        "spec": {
            "group": "test",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.mark.parametrize(
    ("schema", "code", "told"),
    [
        (_schema({"rule": "self.n <"}), 422, "[0].rule: Invalid value: \"self.n <\": compilation failed: ERROR: "),
        (_schema({"rule": "timestamp(self.t) > timestamp(self.u)"}), 501, "the function timestamp in spec.versions[0]"),
        (_schema({"rule": "true", "optionalOldSelf": True}), 501, "optionalOldSelf"),
        (_schema(n={"oneOf": [{"type": "integer"}, {"type": "string"}]}), 501, "properties[spec].properties[n].oneOf"),
    ],
)  # fmt: skip
async def test_a_definition_that_cannot_be_enforced_is_refused(schema: Obj, code: int, told: str) -> None:
    with pytest.raises(ApiError) as refused:
        ApiServer(crds=[_crd(schema)])
    assert refused.value.code == code
    assert told in refused.value.message
