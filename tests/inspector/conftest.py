"""An inspector that is served by itself."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_mengpaneel.inspector import Inspector, create_inspector_app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "inspector.sqlite3"


@pytest.fixture
def app(path: Path) -> Flask:
    return create_inspector_app(path)


@pytest.fixture
def inspector(app: Flask) -> Inspector:
    return t.cast(Inspector, app.extensions["mengpaneel_inspector"])


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
