"""Apps with one page."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, Response, g

from doctor_pages import PAGE
from sites import CreateApp


@pytest.fixture
def serve(create_app: CreateApp) -> CreateApp:
    """Makes an app with one page; settings as for ``create_app``."""

    def create(
        body: str | Response = PAGE, headers: t.Any = (), **settings: t.Any
    ) -> Flask:
        app = create_app(**settings)

        @app.get("/")
        def page() -> Response:
            response = body if isinstance(body, Response) else Response(body)

            for name, value in headers:
                response.headers.add(name, value.replace("NONCE", g.get("nonce", "")))

            return response

        return app

    return create
