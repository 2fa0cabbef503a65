"""Values of other libraries, none of which is imported for it."""

from __future__ import annotations

import collections.abc as c
import datetime as dt
import inspect
import sys
import typing as t

#: What is no value of another library's, or none whose plain value is clear.
UNKNOWN: t.Any = object()


def own_value(value: t.Any) -> t.Any:
    """Return a value of Python's own in the place of another library's.

    :return: :data:`UNKNOWN` if it isn't clear which.
    """
    for library, unwrap in _LIBRARIES:
        # Else it can't be one of that library's.
        if (module := sys.modules.get(library)) is not None:
            found = unwrap(value, module)

            if found is not UNKNOWN:
                return found

    if hasattr(type(value), "__attrs_attrs__"):
        fields = type(value).__attrs_attrs__
        return {field.name: getattr(value, field.name) for field in fields}

    return UNKNOWN


def _is(value: t.Any, module: t.Any, name: str) -> bool:
    """Whether a value is of a class of a library, which may be an old one, or one that
    is being imported."""
    return isinstance(value, getattr(module, name, ()))


def _of_numpy(value: t.Any, numpy: t.Any) -> t.Any:
    if _is(value, numpy, "bool_"):
        return bool(value)

    if not _is(value, numpy, "datetime64"):
        return UNKNOWN

    moment = value.item()

    # Of nanoseconds it makes a number.
    if isinstance(moment, int):
        moment = value.astype("datetime64[us]").item()

    return UNKNOWN if isinstance(moment, int) else moment


def _of_pandas(value: t.Any, pandas: t.Any) -> t.Any:
    missing = (getattr(pandas, name, UNKNOWN) for name in ("NaT", "NA"))
    return None if any(value is one for one in missing) else UNKNOWN


def _of_pydantic(value: t.Any, pydantic: t.Any) -> t.Any:
    is_model = _is(value, pydantic, "BaseModel") and hasattr(value, "model_dump")
    return value.model_dump() if is_model else UNKNOWN


def _of_sqlalchemy(value: t.Any, engine: t.Any) -> t.Any:
    return dict(value._mapping) if _is(value, engine, "Row") else UNKNOWN


_LIBRARIES: tuple[tuple[str, c.Callable[[t.Any, t.Any], t.Any]], ...] = (
    ("numpy", _of_numpy),
    ("pandas", _of_pandas),
    ("pydantic", _of_pydantic),
    ("sqlalchemy.engine", _of_sqlalchemy),
)


def is_duration(value: object) -> bool:
    """Return whether a value is a time span, of which nobody knows the unit."""
    # NumPy's says that it is an integer.
    return isinstance(value, dt.timedelta) or type(value).__name__ == "timedelta64"


def advice(value: t.Any) -> str:
    """Return what to write in the place of a value that can't be sent."""
    kind = type(value)

    # Ask the class: an instance might query a database for the attribute.
    if hasattr(kind, "total_seconds"):
        return "write value.total_seconds()"

    if kind.__name__ == "timedelta64":
        return "write value.item().total_seconds()"

    if isinstance(value, bytes | bytearray):
        return "write value.decode()"

    if hasattr(kind, "__mapper__"):
        return "name the columns, as in {'id': value.id}"

    if inspect.iscoroutine(value):
        return "write 'await' before it"

    if inspect.isroutine(value):
        return "call it: value()"

    if isinstance(value, c.Iterator):
        return "write list(value)"

    # NumPy's scalars have it as well, and give themselves.
    if hasattr(kind, "tolist") and hasattr(kind, "__len__"):
        return "write value.tolist()"

    for method in ("isoformat", "model_dump", "to_dict", "as_dict", "dict"):
        if callable(getattr(kind, method, None)):
            return f"write value.{method}()"

    return "turn it into a text, a number, a date, a list or a dict"
