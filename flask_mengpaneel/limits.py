"""What Mixpanel, browsers and servers take at most, each with its source."""

from __future__ import annotations

# -- responses

#: Bytes of a cookie, with its attributes. Browsers drop a larger one as a whole, and
#: with it all of the session: https://www.rfc-editor.org/rfc/rfc6265#section-6.1, and
#: three bytes less, which is Werkzeug's limit.
MAX_COOKIE = 4093

#: Bytes that a response's other headers may have without cost to the calls in one of
#: them: a proxy has room for 4096 in all.
#: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffer_size
MAX_OTHER_HEADERS = 2048
