"""WSGI apps that are served while a test runs."""

from __future__ import annotations

import logging
import threading
import typing as t

from werkzeug.serving import WSGIRequestHandler, make_server

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


#: An address at which nobody listens: what goes there fails at once.
NOBODY_LISTENS = "http://127.0.0.1:9"


class Complaints(logging.Handler):
    """What the extension logs as gone wrong, as long as it is open.

    :param known: the beginning of a line that is known.
    """

    def __init__(self, known: str | None = None) -> None:
        super().__init__(logging.WARNING)
        self._known = known
        self.lines: list[str] = []
        logging.getLogger("flask_mengpaneel").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)

        if self._known is None or not line.startswith(self._known):
            self.lines.append(line)

    def close(self) -> None:
        logging.getLogger("flask_mengpaneel").removeHandler(self)
        super().close()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: t.Any) -> None:
        if type == "error":
            super().log(type, message, *args)


class Server:
    """A WSGI app, served on loopback by threads until it is closed."""

    def __init__(self, app: WSGIApplication) -> None:
        self._server = make_server(
            "127.0.0.1", 0, app, threaded=True, request_handler=_Quiet
        )
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
