"""Attributes that are worked out when somebody asks for them."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from functools import cached_property as lazy
else:

    class lazy:  # noqa: N801
        """An attribute that is worked out when it is first asked for, and then kept.

        What is in the standard library takes a lock for that until Python 3.12: four
        of them on the way of a page, 1 us each, and these 0.3.
        """

        def __init__(self, work):
            self._work = work
            self.__doc__ = work.__doc__

        def __set_name__(self, owner, name):
            self._name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self

            value = instance.__dict__[self._name] = self._work(instance)
            return value


if t.TYPE_CHECKING:
    lazy_until_set = lazy
else:

    class lazy_until_set(lazy):  # noqa: N801
        """One that is set as well: what a thread sets while another works it out is
        newer."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self

            return instance.__dict__.setdefault(self._name, self._work(instance))


__all__ = ["lazy", "lazy_until_set"]
