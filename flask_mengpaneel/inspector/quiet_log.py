"""The inspector's own requests, left out of the development server's log."""

from __future__ import annotations

import logging


class _LeaveOut(logging.Filter):
    """Leaves out the requests below some paths that went well."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be logged."""
        match record.args:
            case (str(request), str(status), _) if status < "400":
                # "GET /shop/cart?page=2 HTTP/1.1", perhaps with the codes of a colour.
                target = request.partition(" ")[2].partition(" ")[0]
                found = f"{target.partition('?')[0]}/"
                return not any(f"{path}/" in found for path in self.paths)

        return True


_leave_out = _LeaveOut()


def leave_out(path: str) -> None:
    """Leave out the requests below a path, wherever the app is mounted."""
    _leave_out.paths.add(path)
    # Once, however often it is added.
    logging.getLogger("werkzeug").addFilter(_leave_out)
