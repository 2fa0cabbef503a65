"""The limits that Mixpanel and browsers set, each once, with its source."""

from __future__ import annotations

# -- What Mixpanel takes
#
# https://docs.mixpanel.com/reference/track-event#limits unless something else is said.

#: Bytes of JSON in one request, after decompression. One page says 10 MB for /import,
#: its 413 example and all others 2 MB: the stricter one holds.
#: https://docs.mixpanel.com/reference/import-events
MAX_REQUEST_BYTES = 2_097_152

#: Records in one request.
#: https://docs.mixpanel.com/reference/import-events
MAX_RECORDS = 2_000

#: Bytes of JSON in one record. The documentation says "less than 1 MB" and not which
#: one: 10**6 is less than 2**20, so that what fits here fits either way.
MAX_RECORD_BYTES = 1_000_000

#: An event has fewer properties, an object fewer keys, a list fewer elements.
MAX_ITEMS = 255

#: Objects in one another, in a property of an event.
MAX_DEPTH = 3

#: Bytes to which Mixpanel cuts a text, and the name of an event or a property.
#: https://docs.mixpanel.com/docs/data-structure/property-reference/data-type
MAX_TEXT = 255

#: Bytes of a list or an object that is a property of an event, and of a profile.
#: https://docs.mixpanel.com/docs/data-structure/property-reference/data-type
MAX_EVENT_VALUE_BYTES = 8 * 1024
MAX_PROFILE_VALUE_BYTES = 256 * 1024

#: Properties of one profile.
#: https://docs.mixpanel.com/docs/data-structure/user-profiles
MAX_PROFILE_PROPERTIES = 2_000

#: Characters of an ``$insert_id``.
#: https://docs.mixpanel.com/reference/import-events#propertiesinsert_id
MAX_INSERT_ID = 36

#: Seconds before now that /track takes, which is the last 5 days.
MAX_TRACK_AGE = 5 * 86_400

#: Seconds after now that an event's time may be.
#: https://docs.mixpanel.com/reference/import-events#propertiestime
MAX_AHEAD = 3_600

#: The earliest time that /import takes: the beginning of 1971, in seconds since the
#: epoch. https://docs.mixpanel.com/reference/import-events#propertiestime
MIN_IMPORT_TIME = 31_536_000
