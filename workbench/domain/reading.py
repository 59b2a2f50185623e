"""Reading what others wrote: bytes that may be hostile become typed values, or ``BadInput`` that names the place.

Every format that can come from outside is read here: JSON and TOML, bounded by a linear scan *before* they are parsed
(a parser may take seconds for kilobytes), then checked field by field. A format is a table beside its dataclass::

    FILE = record(
        FileEntry,
        path=text(least=1),
        sha256=checked(text(), ids.digest),
        size=whole(),
        chunks=optional(whole(most=100_000), 0),
    )
    manifest = load_json(data, MANIFEST, what="manifest")   # Corrupt: manifest cannot be read: files[3].size: 1.9 is …

Refused everywhere: a byte order mark, bytes that are not UTF-8, a key that stands twice, ``NaN`` and infinities, half
characters (lone surrogates), whole numbers beyond 64 bits, fields that the table does not name. ``true``, ``1.0`` and
``"1"`` are not whole numbers. Not here: what a format's values mean, and where its bytes come from.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, NoReturn, TypeVar

from workbench.domain.errors import Corrupt, UserError, WorkbenchError
from workbench.domain.printable import printable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
E = TypeVar("E", bound=StrEnum)

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
MAX_NUMBER = 64  # characters of a number, and of a name without quotes in TOML twice as many


class BadInput(Exception):
    """What is wrong with the bytes or values that somebody gave, and where in them."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what = what
        self.where = where


class UnknownFormat(BadInput):
    """A version of a format that this workbench does not know."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one document. ``values`` are keys, items and brackets together."""

    size_bytes: int = 1 << 20
    values: int = 100_000
    depth: int = 32


SMALL = Limits()
TOML = Limits(size_bytes=1 << 18, values=20_000, depth=8)


# --- Bytes to plain values ---------------------------------------------------------------------------------------


def parse_json(data: bytes, limits: Limits = SMALL) -> Any:
    """One JSON value (RFC 8259) within the limits; BadInput for anything else."""
    source = _decoded(data, limits)
    _scan_json(data, limits)
    try:
        value = json.loads(
            source, object_pairs_hook=_object, parse_int=_whole, parse_float=_decimal, parse_constant=_no_constant
        )
        if _HALF_CHARACTER.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadInput("it holds half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error}") from None
    return value


def parse_toml(data: bytes, limits: Limits = TOML, *, plain: bool = True) -> dict[str, Any]:
    """A TOML document within the limits; BadInput for anything else. ``plain``: of values that JSON has as well."""
    source = _decoded(data, limits)
    _scan_toml(data, limits)
    try:
        value = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, ValueError) as error:  # a ValueError: a date that no calendar has
        raise BadInput(f"not TOML: {printable(str(error))[:200]}") from None
    if plain:
        _check_plain(value, limits.depth, "")
    return value


def _decoded(data: bytes, limits: Limits) -> str:
    if len(data) > limits.size_bytes:
        raise BadInput(f"it has {len(data)} bytes; {limits.size_bytes} at most are read")
    if data.startswith(b"\xef\xbb\xbf"):
        raise BadInput("it begins with a byte order mark")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"it is not UTF-8 (byte {error.start})") from None


# Each of these takes a string up to its end or, where it has none, all the rest: so no byte is looked at twice.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LONG_NUMBER = re.compile(rb"[-+.0-9eE]{%d}" % (MAX_NUMBER + 1))
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_TOML_TOKEN = re.compile(
    rb'"""(?:[^"\\]++|\\.?|"{1,2}(?!"))*+(?:"{3,5})?|'
    rb"'''(?:[^']++|'{1,2}(?!'))*+(?:'{3,5})?|"
    rb'"(?:[^"\\\n]++|\\.?)*+"?|'
    rb"'[^'\n]*+'?|#[^\n]*+|"
    rb"(?P<word>[A-Za-z0-9_+-]++)|(?P<sign>[\[\]{}.,=\n])",
    re.DOTALL,
)


def _scan_json(data: bytes, limits: Limits) -> None:
    bare = _JSON_STRING.sub(b'"', data)
    brackets = bare.translate(None, _NOT_BRACKETS)
    _check_count(bare.count(b",") + bare.count(b":") + len(brackets), limits)
    depth = 0
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        _check_depth(depth, limits)
    if _LONG_NUMBER.search(bare):
        raise BadInput(f"it holds a number of more than {MAX_NUMBER} characters")


def _scan_toml(data: bytes, limits: Limits) -> None:
    depth = dots = values = 0
    for token in _TOML_TOKEN.finditer(data):
        if word := token["word"]:
            if len(word) > 2 * MAX_NUMBER:
                raise BadInput(f"it holds a name or number of more than {2 * MAX_NUMBER} characters without quotes")
        elif sign := token["sign"]:
            if sign == b".":
                dots += 1
                _check_depth(dots + 1, limits)
                continue
            depth += (sign in b"[{") - (sign in b"]}")
            _check_depth(depth, limits)
            values += sign != b"\n"
            dots = 0
    _check_count(values, limits)


def _check_count(values: int, limits: Limits) -> None:
    if values > limits.values:
        raise BadInput(f"it holds more than {limits.values} keys and values")


def _check_depth(depth: int, limits: Limits) -> None:
    if depth > limits.depth:
        raise BadInput(f"its values are nested deeper than {limits.depth}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadInput(f"the key {printed(twice)} stands twice")
    return found


def _whole(digits: str) -> int:
    value = int(digits)
    if not INT_MIN <= value <= INT_MAX:
        raise BadInput(f"{digits} is beyond 64 bits")
    return value


def _decimal(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadInput(f"{digits} is no finite number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise BadInput(f"{name} is not JSON")


def _check_plain(value: Any, depth: int, where: str) -> None:
    if isinstance(value, dict | list) and not depth:
        raise BadInput("values are nested too deep", where)
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, depth - 1, at(where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, depth - 1, at(where, index))
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise BadInput(f"{value} is beyond 64 bits", where)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{value} is no finite number", where)
    elif not isinstance(value, str):
        raise BadInput("dates and times are not used here: write text or a number", where)


# --- Plain values to typed ones ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape(Generic[T_co]):
    """How a value is read: ``read(value, where)`` gives the typed one or BadInput with ``where``."""

    read: Callable[[Any, str], T_co]
    default: Any = ...  # ``...``: the field must be there


def load_json(
    data: bytes,
    shape: Shape[T],
    *,
    what: str,
    limits: Limits = SMALL,
    error: type[WorkbenchError] = Corrupt,
    hint: str = "",
) -> T:
    """Parse and read; what is wrong becomes ``error``: Corrupt for what is stored, Refused for what is offered."""
    return read_or_tell(lambda: shape.read(parse_json(data, limits), ""), what=what, error=error, hint=hint)


def read_or_tell(read: Callable[[], T], *, what: str, error: type[WorkbenchError] = Corrupt, hint: str = "") -> T:
    """What ``read`` gives; its BadInput becomes ``error`` of ``what``."""
    try:
        return read()
    except UnknownFormat as bad:
        raise error(f"{what} has {bad}", "upgrade workbench, or have it written again with this version") from None
    except BadInput as bad:
        raise error(f"{what} cannot be read: {bad}", hint) from None


def text(*, least: int = 0, most: int = 4096, pattern: str = "", says: str = "") -> Shape[str]:
    """Text of ``least`` to ``most`` characters that the whole ``pattern`` fits; ``says`` tells it in words."""
    fits = re.compile(pattern).fullmatch if pattern else None

    def read(value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise BadInput(f"{printed(value)} is not text", where)
        if not least <= len(value) <= most:
            raise BadInput(f"text of {len(value)} characters, where {least} to {most} are allowed", where)
        if fits and not fits(value):
            raise BadInput(f"{printed(value)} is not {says or f'of the form {pattern}'}", where)
        if not value.isascii():
            check_characters(value, where)
        return value

    return Shape(read)


def whole(least: int = 0, most: int = (1 << 63) - 1) -> Shape[int]:
    """A whole number; ``true``, ``1.0`` and ``"1"`` are none."""

    def read(value: Any, where: str) -> int:
        if type(value) is not int:
            raise BadInput(f"{printed(value)} is not a whole number", where)
        if not least <= value <= most:
            raise BadInput(f"{printed(value)} is not within {least} and {most}", where)
        return value

    return Shape(read)


def number(least: float = -math.inf, most: float = math.inf) -> Shape[float]:
    """A finite number, written whole or not; always a float."""

    def read(value: Any, where: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise BadInput(f"{printed(value)} is not a number", where)
        if not least <= value <= most:
            raise BadInput(f"{printed(value)} is not within {least} and {most}", where)
        return float(value)

    return Shape(read)


def flag() -> Shape[bool]:
    def read(value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            raise BadInput(f"{printed(value)} is not true or false", where)
        return value

    return Shape(read)


def one_of(values: type[E]) -> Shape[E]:
    """A member of an enumeration, by its text."""
    known = {member.value: member for member in values}

    def read(value: Any, where: str) -> E:
        if not isinstance(value, str) or value not in known:
            raise BadInput(f"{printed(value)} is not one of {', '.join(known)}", where)
        return known[value]

    return Shape(read)


def anything() -> Shape[Any]:
    """Any value: the document's limits are its bounds."""
    return Shape(lambda value, where: value)


def optional(shape: Shape[T], default: T) -> Shape[T]:
    """A field that may be left out."""
    return Shape(shape.read, default)


def nullable(shape: Shape[T]) -> Shape[T | None]:
    return Shape(lambda value, where: None if value is None else shape.read(value, where), shape.default)


def checked(shape: Shape[T], check: Callable[[T], U]) -> Shape[U]:
    """What ``check`` makes of the value; its UserError or ValueError is bad input."""

    def read(value: Any, where: str) -> U:
        found = shape.read(value, where)
        try:
            return check(found)
        except UserError as error:
            raise BadInput(printable(error.what), where) from None
        except ValueError as error:
            raise BadInput(printable(str(error))[:200], where) from None

    return Shape(read, shape.default)


def unchanged(shape: Shape[Any]) -> Shape[Any]:
    """The plain value itself, once the shape has found nothing wrong with it."""

    def read(value: Any, where: str) -> Any:
        shape.read(value, where)
        return value

    return Shape(read, shape.default)


def items(shape: Shape[T], most: int = 1_000_000, least: int = 0) -> Shape[tuple[T, ...]]:
    """A list."""

    def read(value: Any, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BadInput(f"{printed(value)} is not a list", where)
        if not least <= len(value) <= most:
            raise BadInput(f"a list of {len(value)}, where {least} to {most} are allowed", where)
        return tuple(shape.read(item, at(where, index)) for index, item in enumerate(value))

    return Shape(read)


def mapping(shape: Shape[T], most: int = 10_000, key: Shape[Any] | None = None) -> Shape[dict[str, T]]:
    """An object whose keys are free; ``key`` says how each must look."""
    keys = key or text(most=256)

    def read(value: Any, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise BadInput(f"{printed(value)} is not an object", where)
        if len(value) > most:
            raise BadInput(f"an object of {len(value)} keys, where {most} at most are allowed", where)
        return {keys.read(name, at(where, name)): shape.read(item, at(where, name)) for name, item in value.items()}

    return Shape(read)


def record(
    make: Callable[..., T], /, *, format: Collection[int] = (), more: bool = False, **fields: Shape[Any]
) -> Shape[T]:
    """An object with these fields, given to ``make`` by name. ``format``: the versions that its field of this name may
    say. ``more``: fields beside these are left aside."""
    return _record(make, fields, format, more)


def _record(
    make: Callable[..., T], fields: Mapping[str, Shape[Any]], format: Collection[int] = (), more: bool = False
) -> Shape[T]:
    needed = [name for name, shape in fields.items() if shape.default is ...]

    def read(value: Any, where: str) -> T:
        if not isinstance(value, dict):
            raise BadInput(f"{printed(value)} is not an object", where)
        if format:
            check_format(value, format, where)
        for name in value:
            if name not in fields and not more and not (format and name == "format"):
                raise BadInput("no such field is known", at(where, name))
        for name in needed:
            if name not in value:
                raise BadInput("it is missing", at(where, name))
        found = {
            name: shape.read(value[name], at(where, name)) if name in value else shape.default
            for name, shape in fields.items()
        }
        try:
            return make(**found)
        except UserError as error:
            raise BadInput(printable(error.what), where) from None
        except ValueError as error:
            raise BadInput(printable(str(error))[:200], where) from None

    return Shape(read)


def row(make: Callable[..., T], /, **fields: Shape[Any]) -> Shape[T]:
    """A list that has these fields in this order, without their names."""
    named = _record(make, fields)

    def read(value: Any, where: str) -> T:
        if not isinstance(value, list) or len(value) != len(fields):
            raise BadInput(f"{printed(value)} is not a list of {', '.join(fields)}", where)
        return named.read(dict(zip(fields, value, strict=True)), where)

    return Shape(read)


def by_format(shapes: Mapping[int, Shape[T]]) -> Shape[T]:
    """An object in one of several versions of its format: each has a table of its own."""

    def read(value: Any, where: str) -> T:
        if not isinstance(value, dict):
            raise BadInput(f"{printed(value)} is not an object", where)
        return shapes[check_format(value, shapes, where)].read(value, where)

    return Shape(read)


def check_format(value: Mapping[str, Any], known: Collection[int], where: str = "") -> int:
    """The format that an object says it has; UnknownFormat where it is none of ``known``."""
    found = value.get("format")
    if type(found) is not int or found not in known:
        reads = " and ".join(map(str, sorted(known)))
        raise UnknownFormat(f"format {printed(found)}; this workbench reads format {reads}", where)
    return found


def check_characters(value: str, where: str = "") -> str:
    """Text of whole characters: no lone surrogate, which no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadInput("it holds half a character (a lone surrogate)", where) from None
    return value


def printed(value: Any, most: int = 60) -> str:
    """A value for an error message: on one line, short, of characters that every terminal shows as they are."""
    if isinstance(value, dict | list | tuple):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    shown = ascii(value[: most + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= most else f"{shown[:most]}…"


_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def at(where: str, key: str | int) -> str:
    """The place of a field or an item inside ``where``."""
    if isinstance(key, int) or not _PLAIN_KEY.fullmatch(key):
        return f"{where}[{key if isinstance(key, int) else printed(key)}]"
    return f"{where}.{key}" if where else key
