from __future__ import annotations

import pytest

from needs import need, need_npm


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def test_a_program_that_is_there_has_a_path() -> None:
    assert need("python3").endswith("python3")


def test_a_test_is_skipped_for_want_of_a_program() -> None:
    with pytest.raises(pytest.skip.Exception, match="unicorn is not installed"):
        need("unicorn")


def test_a_test_is_skipped_for_want_of_an_npm_package() -> None:
    with pytest.raises(pytest.skip.Exception, match="unicorn is not installed: npm ci"):
        need_npm("unicorn")


def test_in_continuous_integration_a_test_fails_for_want_of_a_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="unicorn is not installed"):
        need("unicorn")
