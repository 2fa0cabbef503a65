"""The Celery app of the shop, for ``celery -A worker``."""

from __future__ import annotations

from shop import create_app

celery = create_app().extensions["celery"]
