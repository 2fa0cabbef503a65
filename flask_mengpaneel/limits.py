"""The limits of Mixpanel, of browsers and of what is in between, each with its source.

What this package sets itself, such as how long it waits, stands where it is used.
"""

from __future__ import annotations

import re

# Mixpanel's requests.

#: Records in one request to ``/import``, ``/engage`` or ``/groups``.
#: https://docs.mixpanel.com/reference/import-events
MAX_RECORDS = 2_000
#: Bytes of one request before compression. The text says 10 MB for ``/import``; the
#: example of the answer 413 and the other endpoints say 2 MB.
#: https://docs.mixpanel.com/reference/import-events
MAX_REQUEST_BYTES = 2_097_152
#: Bytes that we put into one request: a margin below that.
MAX_BATCH_BYTES = 2_000_000

# Mixpanel's records.

#: A record has fewer bytes of JSON than that. Mixpanel says "1 MB"; this is the smaller
#: reading.
#: https://docs.mixpanel.com/reference/track-event#limits
MAX_RECORD_BYTES = 1_000_000
#: Properties of an event, keys of an object in it, and values of a list in it.
#: https://docs.mixpanel.com/reference/track-event#limits
MAX_ITEMS = 255
#: Objects in one another in a property.
#: https://docs.mixpanel.com/reference/track-event#limits
MAX_DEPTH = 3
#: Characters of a name or an id, and bytes of a text; Mixpanel cuts what is longer. The
#: inspector counts bytes of both, the smaller reading.
#: https://docs.mixpanel.com/reference/track-event#limits
#: https://docs.mixpanel.com/docs/data-structure/property-reference/data-type
MAX_TEXT = 255
#: Bytes of a list or an object in a property of an event, and of a profile.
#: https://docs.mixpanel.com/docs/data-structure/property-reference/data-type
MAX_EVENT_VALUE_BYTES = 8 * 1024
MAX_PROFILE_VALUE_BYTES = 256 * 1024
#: Properties of a profile.
#: https://docs.mixpanel.com/docs/data-structure/user-profiles
MAX_PROFILE_PROPERTIES = 2_000
#: Seconds from now that the time of an event may be in the past, at ``/track``, and in
#: the future; ``/import`` takes all since 1971.
#: https://docs.mixpanel.com/reference/import-events
MAX_TRACK_AGE = 5 * 86_400
MAX_AHEAD = 3_600
MIN_IMPORT_TIME = 31_536_000

#: A time from here on is in milliseconds, one below in seconds: Mixpanel takes both.
#: As seconds it would be in the year 5138, and as milliseconds it is in 1973.
#: https://docs.mixpanel.com/reference/import-events#propertiestime
MIN_MILLISECONDS = 1e11

#: Characters of an ``$insert_id``, and which.
#: https://docs.mixpanel.com/reference/import-events#propertiesinsert_id
MAX_INSERT_ID = 36
INSERT_ID = re.compile(rf"[A-Za-z0-9-]{{1,{MAX_INSERT_ID}}}")

# Browsers, servers and proxies.

#: Bytes of a cookie, its name and attributes included, that browsers keep, less three
#: that Werkzeug leaves; a larger one is dropped as a whole.
#: https://datatracker.ietf.org/doc/html/rfc6265#section-6.1
MAX_SESSION_COOKIE_BYTES = 4_093
#: Bytes of what several requests let wait in one session that is kept on a server: a
#: few times what a cookie has room for. Each that adds to it reads and writes all.
MAX_WAITING_BYTES = 16_384
#: Bytes of a cookie's name and value.
#: https://datatracker.ietf.org/doc/html/rfc6265#section-6.1
MAX_COOKIE_BYTES = 4_096
#: Bytes of one header of a request: nginx, Apache and gunicorn refuse more.
#: https://nginx.org/en/docs/http/ngx_http_core_module.html#large_client_header_buffers
MAX_REQUEST_HEADER_BYTES = 8_000
#: Bytes of all headers of a response that nginx has room for by default.
#: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffer_size
MAX_RESPONSE_HEADERS_BYTES = 4_096
#: The largest integer that a browser tells from the next.
#: https://tc39.es/ecma262/#sec-number.max_safe_integer
MAX_SAFE_INTEGER = 2**53 - 1
#: Bits of an integer that a browser doesn't take for infinite.
#: https://tc39.es/ecma262/#sec-ecmascript-language-types-number-type
MAX_INTEGER_BITS = 1_024

#: Bytes that a response's other headers may have without cost to the calls in one of
#: them: half of what a proxy has room for.
MAX_OTHER_HEADERS = MAX_RESPONSE_HEADERS_BYTES // 2

# Other services, in which a visitor is kept.

#: Characters of a text: it fits wherever one keeps notes.
#: https://docs.stripe.com/metadata
MAX_METADATA = 500

# URLs and user agents, as requests have them.

#: Characters of a URL that are read: nginx, Apache and gunicorn take no longer one
#: unless they are told to.
#: https://nginx.org/en/docs/http/ngx_http_core_module.html#large_client_header_buffers
MAX_URL = 8_192
#: Characters of the name of a host.
#: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
MAX_HOST = 253
#: Characters of a property that the browser library reads from a URL, counted as
#: JavaScript does: ``_.info`` in utils.js of mixpanel-browser 2.83.0.
MAX_URL_PROPERTY = 255
#: Characters of a user agent that are read: no real one is longer, though a header can
#: be as long as the server lets it.
MAX_USER_AGENT = 1_024
