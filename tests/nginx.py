"""A real nginx on loopback, in front of an app.

Each way of setting it up is a host of its own, ``NAME.localhost``, with a cache of its
own; browsers look for all of them here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from needs import need
from ports import free_port

_MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log stderr notice;

events {{}}

http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{}}
    default_type text/html;
    # Names that are long, and many.
    server_names_hash_bucket_size 128;
    {servers}
}}
"""

_SERVER = """
    proxy_cache_path {folder}/cache-{name} keys_zone={name}:1m;

    server {{
        listen 127.0.0.1:{port};
        server_name {name}.localhost;
        add_header X-Cache $upstream_cache_status always;

        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            {directives}
        }}

        location /internal/ {{
            internal;
            alias {folder}/files/;
        }}

        location = /errors {{
            internal;
            alias {folder}/files/error.html;
        }}
    }}
"""

_KEEPS = """
    proxy_cache ZONE;
    proxy_cache_valid 200 301 302 404 1m;
"""
_IGNORES = _KEEPS + "proxy_ignore_headers Set-Cookie Vary;"

#: How people set nginx up: a name, and what is in its ``location``; ``ZONE`` is its
#: cache.
WAYS: dict[str, str] = {
    "plain": "",
    "keeping": _KEEPS,
    "ignoring-cookies": _KEEPS + "proxy_ignore_headers Set-Cookie;",
    "ignoring-cookies-and-vary": _IGNORES,
    "microcaching": """
        proxy_cache ZONE;
        proxy_cache_valid any 1s;
        proxy_ignore_headers Set-Cookie Vary;
        proxy_cache_lock on;
        proxy_cache_use_stale updating;
        proxy_cache_background_update on;
    """,
    "serving-stale": _IGNORES
    + """
        proxy_cache_revalidate on;
        proxy_cache_use_stale error timeout updating http_500 http_502 http_404;
        proxy_cache_background_update on;
    """,
    "keeping-posts": _IGNORES
    + """
        proxy_cache_methods GET HEAD POST;
        proxy_cache_valid any 1m;
    """,
    "key-without-query": _IGNORES + "proxy_cache_key $host$uri;",
    "bypassing-sessions": _IGNORES + "proxy_cache_bypass $cookie_session;",
    "sparing-sessions": _IGNORES
    + """
        proxy_cache_bypass $cookie_session;
        proxy_no_cache $cookie_session;
    """,
    "compressing": _IGNORES
    + """
        gzip on;
        gzip_proxied any;
        gzip_min_length 0;
        gzip_types application/json;
    """,
    "hiding-cookies": _IGNORES + "proxy_hide_header Set-Cookie;",
    "replacing-errors": _IGNORES
    + """
        proxy_intercept_errors on;
        error_page 401 404 500 502 /errors;
    """,
    "asking-head": _IGNORES
    + """
        proxy_cache_convert_head off;
        proxy_cache_key $request_method$host$request_uri;
    """,
}

#: The way that keeps the most.
GREEDY = "ignoring-cookies-and-vary"


class Nginx:
    """nginx, until it is closed.

    :param upstream: the port of the app.
    """

    def __init__(self, folder: Path, upstream: int) -> None:
        program = need("nginx")
        self.port = free_port()
        files = folder / "files"
        files.mkdir()
        (files / "file.html").write_text("<title>A file</title>")
        (files / "error.html").write_text("<title>An error</title>")
        servers = "".join(
            _SERVER.format(
                folder=folder,
                name=name,
                port=self.port,
                upstream=upstream,
                directives=directives.replace("ZONE", name),
            )
            for name, directives in WAYS.items()
        )
        # As another user its workers couldn't read what tests write.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _MAIN.format(folder=folder, user=user, servers=servers)
        )
        self._log = folder / "log"

        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-p", str(folder), "-c", str(configuration), "-e", "stderr"],
                stdout=log,
                stderr=log,
            )

        self._wait()

    def url(self, way: str) -> str:
        """Where browsers find the app by this way."""
        return f"http://{self.host(way)}"

    def host(self, way: str) -> str:
        return f"{way}.localhost:{self.port}"

    @property
    def output(self) -> str:
        """What nginx has said."""
        return self._log.read_text(errors="replace")

    def _wait(self) -> None:
        deadline = time.monotonic() + 60

        while True:
            assert self._process.poll() is None, self.output

            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.output
                time.sleep(0.01)

    def close(self) -> None:
        """End it, and wait until it has ended."""
        self._process.terminate()

        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
