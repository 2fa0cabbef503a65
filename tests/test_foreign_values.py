"""Values of libraries that apps use: taken where it is clear what they are."""

from __future__ import annotations

import datetime as dt
import typing as t

import attrs
import numpy as np
import pandas as pd
import pydantic
import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from case_ids import case_id
from flask_mengpaneel.values import plain


class Size(pydantic.BaseModel):
    width: int
    since: dt.date
    unit: t.Annotated[str, pydantic.Field(exclude=True)] = "cm"


class Box(pydantic.BaseModel):
    sizes: list[Size]


class Sizes(pydantic.RootModel[list[int]]):
    pass


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


@attrs.define
class Point:
    x: int
    since: dt.date


class Base(orm.DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


def row() -> t.Any:
    with sa.create_engine("sqlite://").connect() as db:
        return db.execute(sa.text("SELECT 1 AS id, 'ann' AS name")).one()


DATE = dt.date(2026, 1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.bool_(True), True),
        (np.int64(7), 7),
        (np.int64(2**60), str(2**60)),
        (np.float32(1.5), 1.5),
        (np.float64(1.5), 1.5),
        (np.str_("a"), "a"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05"),
        (np.datetime64("NaT"), None),
        (pd.Timestamp("2026-01-02T03:04", tz="Europe/Berlin"), "2026-01-02T02:04:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (
            Box(sizes=[Size(width=3, since=DATE)]),
            {"sizes": [{"width": 3, "since": "2026-01-02"}]},
        ),
        (Sizes([1, 2]), [1, 2]),
        (Point(1, DATE), {"x": 1, "since": "2026-01-02"}),
        (row(), {"id": 1, "name": "ann"}),
        (row()._mapping, {"id": 1, "name": "ann"}),
        (
            [np.int64(1), {"a": Point(1, DATE)}],
            [1, {"a": {"x": 1, "since": "2026-01-02"}}],
        ),
    ],
    ids=case_id,
)
def test_a_value_whose_plain_value_is_clear_is_taken(
    value: t.Any, expected: t.Any
) -> None:
    result = plain({"a": value})["a"]  # type: ignore[call-overload, index]

    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (np.array([1]), r"numpy.ndarray.*value\.tolist\(\)"),
        (
            np.timedelta64(5, "s"),
            r"numpy.timedelta64.*value\.item\(\)\.total_s",
        ),
        (np.float64("nan"), r"numpy.float64.*None in its place"),
        (np.datetime64("20000-01-01T00:00"), r"numpy.datetime64.*turn it into"),
        (np.complex64(1), r"numpy.complex64.*turn it into"),
        (pd.Series([1]), r"pandas.*Series.*value\.tolist\(\)"),
        (pd.DataFrame({"a": [1]}), r"pandas.*DataFrame.*value\.to_dict\(\)"),
        (pd.Timedelta(5), r"Timedelta.*value\.total_seconds\(\)"),
        (dt.timedelta(1), r"timedelta.*value\.total_seconds\(\)"),
        (dt.time(1), r"time.*value\.isoformat\(\)"),
        (b"x", r"bytes.*value\.decode\(\)"),
        (User(id=1), r"User.*name the columns"),
        (User.__init__, r"function.*value\(\)"),
        (iter([1]), r"iterator.*list\(value\)"),
        (Secret(password=pydantic.SecretStr("x")), r"SecretStr"),
        (Point, r"'type'"),
    ],
    ids=case_id,
)
def test_another_value_is_refused_with_its_type_and_what_to_write(
    value: t.Any, advice: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=advice):
        plain({"a": value})
