// What is posted to the app: calls that go back, and what is acknowledged.

import { origin, originalFetch } from "./browser";
import { leaving } from "./page";

/** What may be in requests by `fetch` that outlive the page: see `isFetched`. */
let room = 20_000;

/**
 * Post a text to the app.
 *
 * @param path on the page's own site, wherever its `<base>` leads.
 * @param fail is called if the app couldn't take it now, and may later.
 * @param isSpare says that it is no loss if it doesn't arrive.
 */
export const postToApp = (
  path: string | null | undefined,
  body: string,
  fail: () => void,
  isSpare: unknown,
) => {
  const url = origin + path;
  if (path && (!leaving || isFetched(body, isSpare)))
    originalFetch(url, { method: "POST", body, keepalive: true }).then(
      // Later, where the app says so: 429 and 5xx. Other answers settle it.
      ({ status }) => status > 428 && fail(),
      // Of a page that was left meanwhile, the request goes on by itself.
      () => leaving || fail(),
    );
  // A beacon says at once whether there is room for it: browsers let 64 KiB outlive a
  // page.
  else if (!path || !navigator.sendBeacon(url, body)) fail();
};

/**
 * Whether to use `fetch` though the page is being left.
 *
 * Under `Referrer-Policy: no-referrer`, Firefox says that a beacon's origin is null,
 * which the app refuses where nothing else tells whose page it is: without encryption.
 * A `fetch` doesn't say at once whether there is room for it. So it has to be small; a
 * character takes up to three bytes.
 */
const isFetched = (body: string, isSpare: unknown) =>
  !isSecureContext && isSpare && (room -= body.length) > 0;
