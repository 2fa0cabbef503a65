"""The suites, and why some of their tests see the extension."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Suite:
    """The tests of a distribution, as its source package has them.

    :param version: the newest whose source package has its tests.
    :param paths: where in the source package the tests are.
    :param needs: what they need besides pytest and the distribution itself.
    :param programs: servers that they expect to run already, by the port.
    :param settings: of the extension, as JSON has them.
    :param known: tests that differ or log something with the extension, and why they
        may.
    """

    name: str
    version: str
    paths: tuple[str, ...]
    needs: tuple[str, ...] = ()
    programs: dict[str, int] = dataclasses.field(default_factory=dict)
    settings: dict[str, str] = dataclasses.field(default_factory=dict)
    known: dict[str, str] = dataclasses.field(default_factory=dict)


ROUTES = "lists all routes, and the extension has some"
COOKIES = "reads the first cookie only, and the visitor's is before the session's"
BODY = "knows each byte of the page, and the page has the script"
ETAG = "wants the app's ETag, which a page with somebody's calls must not have"
ASKED = "counts who asks for the user, and the extension is one of them"
OPENED = "opens the connection, which asking for the user has opened before"
PROXIED = "is asked through a proxy of which the app doesn't know, and the log says so"
NO_LOADER = "has nothing that loads users, and the log says so"

FLASK = "flask==3.1.3"

SUITES = (
    Suite(
        "Flask",
        "3.1.3",
        ("tests",),
        ("asgiref", "greenlet", "python-dotenv"),
        known={
            "TestRoutes::test_simple": ROUTES,
            "TestRoutes::test_sort": ROUTES,
            "TestRoutes::test_no_routes": ROUTES,
            "test_session_path": COOKIES,
            "test_session_using_application_root": COOKIES,
            "test_session_using_session_settings": COOKIES,
            "test_session_expiration": COOKIES,
        },
    ),
    Suite(
        "Flask-Login",
        "0.6.3",
        ("tests",),
        ("asgiref", "semantic-version"),
        settings={"login": "flask-login"},
        known={
            **{
                f"LoginTestCase::test_{name}": ASKED
                for name in (
                    "requests_without_accessing_session",
                    "session_protection_skip_when_basic_and_anonymous",
                    "session_protection_skip_when_off_and_anonymous",
                )
            },
            **{
                f"LoginTestCase::test_{name}_x_forwarded_for": PROXIED
                for name in (
                    "login_persists_with_many",
                    "login_persists_with_signle",
                    "session_protection_strong_fires_signal",
                )
            },
            "StaticTestCase::test_static_loads_without_accessing_session": ASKED,
            "MethodViewLoginTestCase::test_options_call_exempt": NO_LOADER,
        },
    ),
    Suite(
        "Flask-Security",
        "5.9.2",
        # Those that sign in and out, in each way: all of them take half an hour.
        tuple(
            f"tests/test_{name}.py"
            for name in ("async", "passwordless", "registerable", "trackable")
        ),
        (
            *("argon2-cffi", "authlib", "bcrypt", "cryptography", "flask-babel"),
            *("flask-mail", "flask-sqlalchemy", "freezegun", "nh3", "peewee"),
            *("phonenumberslite", "qrcode", "requests", "sqlalchemy<2.1"),
            *("sqlalchemy-utils", "webauthn", "zxcvbn"),
        ),
        settings={"login": "flask-login"},
        known={"test_registerable_flag": OPENED, "test_username": OPENED},
    ),
    Suite("Flask-WTF", "1.3.0", ("tests",), ("flask-babel", "flask-reuploaded")),
    Suite("Flask-Talisman", "1.1.0", ("flask_talisman/talisman_test.py",)),
    Suite("Flask-DebugToolbar", "0.15.1", ("test",)),
    Suite(
        "Flask-Compress",
        "1.25",
        ("tests",),
        ("flask-caching",),
        known={
            "UrlTests::test_compress_min_size": BODY,
            "UrlTests::test_compressed_content": BODY,
            **{
                f"ETagTests::test_{name}": ETAG
                for name in (
                    "strong_etag_is_mutated_with_suffix_and_remains_strong",
                    "weak_etag_is_preserved",
                    "conditional_get_uses_strong_compressed_representation",
                    "conditional_get_uses_strong_compressed_representation"
                    "_evaluate_conditional",
                    "conditional_get_uses_weak_compressed_representation",
                    "conditional_get_uses_weak_compressed_representation"
                    "_evaluate_conditional",
                )
            },
        },
    ),
    Suite(
        "Flask-Caching",
        "2.5.1",
        ("tests",),
        ("asgiref", "pytest-asyncio", "pytest-xprocess", "redis"),
        known={"test_cached_view_returning_stream_template": BODY},
    ),
    Suite(
        "Flask-Session",
        "0.5.0",
        ("test_session.py",),
        ("redis",),
        programs={"redis-server": 6379},
    ),
)
