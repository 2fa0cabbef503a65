"""What Mixpanel, browsers and servers take at most, each with its source."""

from __future__ import annotations

# -- values and arguments

#: Bytes of a record: https://docs.mixpanel.com/reference/track-event#limits
MAX_RECORD = 1_048_576

#: Values in all the lists and dicts of one value: no record has room for more.
MAX_ITEMS = 500_000

#: Lists and dicts in one another. Mixpanel shows three; what is read and written with
#: the calls, sessions too, needs some frames for each.
MAX_DEPTH = 32

#: Beyond it two integers are the same number in a browser:
#: https://tc39.es/ecma262/#sec-number.max_safe_integer
MAX_INTEGER = 2**53 - 1

#: Bits of an integer that a browser doesn't take for infinite:
#: https://tc39.es/ecma262/#sec-ecmascript-language-types-number-type
MAX_BITS = 1024

#: Characters of an id, counted as JavaScript does. Mixpanel cuts what is longer:
#: https://docs.mixpanel.com/reference/track-event#limits
MAX_ID = 255

# -- what clients say

#: Characters of a URL that are read. No server takes a longer one.
MAX_URL = 8192

#: Characters of a user agent that are read. No real one is longer, though a header can
#: be as long as the server lets it.
MAX_USER_AGENT = 1024

#: Characters of a list of addresses that are read: the first is within that.
MAX_ADDRESSES = 128

#: Characters of a host's name: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4
MAX_HOST = 253

#: Characters of a property that the browser library reads from a URL, counted as
#: JavaScript does (``_.info`` in utils.js of mixpanel-browser 2.83.0).
MAX_URL_PROPERTY = 255

# -- the library's cookie

#: Bytes of a cookie that browsers keep:
#: https://www.rfc-editor.org/rfc/rfc6265#section-6.1
MAX_LIBRARY_COOKIE = 4096

#: Bytes of all cookies. nginx, Apache and gunicorn refuse a request with more in one
#: header, so that a visitor who has that many can't visit the site any more.
MAX_COOKIE_HEADER = 8000

#: Bytes that the library's cookie may have however large the others are.
MIN_LIBRARY_COOKIE = 1024

#: Lists and dicts in one another that are read from the library's cookie: Mixpanel
#: takes 3 (https://docs.mixpanel.com/reference/track-event#limits), and the library's
#: own bookkeeping is one deeper.
MAX_COOKIE_DEPTH = 4

# -- units of work

#: Calls of a job that are kept until they are flushed: what Mixpanel takes at once,
#: https://docs.mixpanel.com/reference/import-events#limits
MAX_JOB_CALLS = 2000
