"""The Celery app of `processes`, for ``celery -A worker``."""

from __future__ import annotations

from processes import create_app

celery = create_app().extensions["celery"]
