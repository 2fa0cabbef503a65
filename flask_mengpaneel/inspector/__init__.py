"""A stand-in for Mixpanel, for development and tests."""

from .app import Inspector as Inspector
from .app import create_inspector_app as create_inspector_app

__all__ = ["Inspector", "create_inspector_app"]
