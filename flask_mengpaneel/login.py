"""How an app signs its visitors in: who it is now, and when that changes."""

from __future__ import annotations

import collections.abc as c
import dataclasses
import typing as t

if t.TYPE_CHECKING:
    from blinker import Signal


def _get_id(user: t.Any) -> object:
    return user.get_id()


@dataclasses.dataclass(frozen=True)
class Login:
    """What the extension has to know of the way in which an app signs visitors in.

    ``Login.flask_login()`` is what ``MENGPANEEL_LOGIN = "flask-login"`` means. An app
    with another way makes its own::

        Login(
            user=lambda: None if g.identity.id is None else g.identity,
            user_id=lambda identity: identity.id,
            signals={
                identity_changed: lambda identity: (
                    None if identity.id is None else identity
                )
            },
        )

    :param user: returns who has signed in, as an object of any kind, or ``None``. It is
        called in requests. If it raises, nothing is known, and nothing done.
    :param user_id: returns the id of such an object.
    :param signals: signals that are sent when somebody signs in or out, with the app as
        their sender. For each a callable, which gets the signal's arguments and returns
        who is signed in from then on, or ``None``.
    """

    user: c.Callable[[], t.Any]
    user_id: c.Callable[[t.Any], object]
    signals: c.Mapping[Signal, c.Callable[..., t.Any]]

    @classmethod
    def flask_login(cls, user_id: c.Callable[[t.Any], object] = _get_id) -> Login:
        """Return what is to be known of Flask-Login, and of what is built on it.

        :param user_id: returns the id of a user, if that isn't their ``get_id()``.
        """
        import flask_login

        def user() -> t.Any:
            current = flask_login.current_user
            return current._get_current_object() if current.is_authenticated else None

        return cls(
            user,
            user_id,
            {
                flask_login.user_logged_in: lambda user: user,
                flask_login.user_logged_out: lambda user: None,
            },
        )
