from __future__ import annotations

import collections.abc as c
from pathlib import Path

import pytest
import trustme

from needs import need
from redis_server import Redis


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The only authority that this machine trusts."""
    authority = trustme.CA()
    bundle = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    return authority


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> c.Iterator[Redis]:
    """A server for the tests of a module."""
    need("redis-server")
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()
