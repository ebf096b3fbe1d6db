"""JSON pointers (RFC 6901), and the conditions at which `replay --break-on` stops. Knows plain JSON values, no log.

condition = "type=" glob           the event's type
          | pointer " changed"     what stands at the pointer is another than before the event, or came, or went
          | expression             of state, event (its payload), type, stream, version, error, sender: state.cents > 100 and not error

Expressions are comparisons, and/or/not, in, + - * / %, len(), members by name or index. A member that is not there is None, and a
comparison that makes no sense is false. They are read off the syntax tree: no name leads to anything but the values listed.
"""

import ast
import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from actors.errors import BadPayload


class _Missing:
    """What stands where nothing stands; None is a value of JSON."""

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()
CONDITION_CHARACTERS_MAX: Final = 1_000


def parse_pointer(text: str) -> tuple[str, ...]:
    """The members that a JSON pointer names; the empty pointer names the whole document.

    Raises:
        BadPayload: it does not begin with "/", or has a "~" that means nothing.
    """
    if text and not text.startswith("/"):
        raise BadPayload(f"{text!r} is no JSON pointer: write /member/0/member (~1 for /, ~0 for ~)", field="pointer")
    if re.search(r"~(?![01])", text):
        raise BadPayload(f"{text!r} is no JSON pointer: ~ is written ~0", field="pointer")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def at_pointer(document: Any, parts: tuple[str, ...]) -> Any:
    """What stands at the pointer, `MISSING` if nothing does."""
    for part in parts:
        if isinstance(document, Mapping) and part in document:
            document = document[part]
        elif isinstance(document, list) and re.fullmatch(r"0|[1-9]\d{0,8}", part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return MISSING
    return document


class Moment:
    """What a condition is asked of: one event, with the state before and after it as plain JSON values."""

    __slots__ = ("after", "before", "facts")

    def __init__(self, before: Any, after: Any, facts: Mapping[str, Any]) -> None:
        self.before = before
        self.after = after
        self.facts = facts


Condition = Callable[[Moment], bool]


def parse_condition(text: str) -> Condition:
    """
    Raises:
        BadPayload: it is none of the three forms; says what is wrong.
    """
    if len(text) > CONDITION_CHARACTERS_MAX:
        raise BadPayload(f"the condition has more than {CONDITION_CHARACTERS_MAX:,} characters", field="break_on")
    if text.startswith("type=") and not text.startswith("type=="):
        wanted = re.compile(fnmatch.translate(text.removeprefix("type=").strip()))
        return lambda moment: wanted.match(moment.facts["type"]) is not None
    if (found := re.fullmatch(r"(\S*)\s+changed", text)) is not None:
        parts = parse_pointer(found[1])
        return lambda moment: bool(at_pointer(moment.before, parts) != at_pointer(moment.after, parts))
    tree = _parsed(text)
    return lambda moment: bool(_value(tree, {"state": moment.after, **moment.facts}))


NAMES: Final = frozenset({"state", "event", "type", "stream", "version", "error", "sender", "true", "false", "null"})
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b, ast.Is: operator.eq, ast.IsNot: operator.ne,
}  # fmt: skip
_ALLOWED: Final = (
    ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.BinOp, ast.Constant, ast.Name, ast.Load, ast.Attribute,
    ast.Subscript, ast.Call, *_BINARY, *_COMPARE,
)  # fmt: skip


def _parsed(text: str) -> ast.expr:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadPayload(
            f"{text!r} is no condition: type=GLOB, '/pointer changed', or an expression such as state.cents > 100", field="break_on"
        ) from error
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise BadPayload(f"{text!r}: a condition knows no {type(node).__name__}", field="break_on")
        if isinstance(node, ast.Call) and not _is_len(node):
            raise BadPayload(f"{text!r}: the only call in a condition is len(...)", field="break_on")
        if isinstance(node, ast.Name) and node.id not in NAMES and node.id != "len":
            raise BadPayload(f"{text!r}: unknown name {node.id!r} (known: {', '.join(sorted(NAMES))})", field="break_on")
    return tree


def _is_len(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "len" and len(node.args) == 1 and not node.keywords


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return _CONSTANTS[node.id] if node.id in _CONSTANTS else names.get(node.id)
        case ast.Attribute():
            return _member(_value(node.value, names), node.attr)
        case ast.Subscript():
            return _member(_value(node.value, names), _value(node.slice, names))
        case ast.BoolOp():
            values = (_value(each, names) for each in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.UnaryOp():
            value = _value(node.operand, names)
            return not value if isinstance(node.op, ast.Not) else _sensible(operator.neg, value)
        case ast.BinOp():
            return _sensible(_BINARY[type(node.op)], _value(node.left, names), _value(node.right, names))
        case ast.Call():
            return _sensible(len, _value(node.args[0], names))
        case ast.Compare():
            values_in_order = [_value(each, names) for each in (node.left, *node.comparators)]
            pairs = zip(node.ops, values_in_order, values_in_order[1:], strict=False)
            return all(_sensible(_COMPARE[type(op)], left, right) for op, left, right in pairs)
    return None


def _member(owner: Any, name: Any) -> Any:
    if isinstance(owner, Mapping):
        return owner.get(str(name))
    if isinstance(owner, list) and isinstance(name, int) and -len(owner) <= name < len(owner):
        return owner[name]
    return None


def _sensible(function: Callable[..., Any], *values: Any) -> Any:
    """None where the values do not go together: a state grows its members, and a condition is asked of all of it."""
    # A text times a number is no question about a state, and would make 2**60 characters.
    if function is operator.mul and any(isinstance(value, str | list) for value in values):
        return None
    try:
        return function(*values)
    except (TypeError, ValueError, ArithmeticError):
        return None
