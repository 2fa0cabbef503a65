// Calls as they come from the app, and how they go back to it.

import type { Call } from "../mengpaneel";
import { originalFetch } from "./browser";
import { main } from "./instance";
import { blocked, leaving, page } from "./page";
import { add, load, remove } from "./storage";
import type { HandBack, Handover, Item, PageData, SignedCalls } from "./types";

/**
 * Return those calls of a response that are still to be made.
 *
 * Back, forward, reload and a duplicated tab show a page once more: its hand-overs have
 * an id, by which this browser knows that it has made their calls.
 */
export const itemsToMake = (signed: SignedCalls): Item[] => {
  const data: PageData | Call[] = JSON.parse(signed.text);
  const only = signed.calls;
  const items: Item[] = [];
  const handover = { signed, items };

  for (const [once, calls] of (data as PageData).calls || [[null, data as Call[]]]) {
    const wasMade = load("made").includes(once!);
    if (once && !wasMade) add("made", once);

    for (const call of calls) {
      // Of what was handed back before, only the calls that were.
      const done = only ? !only.includes(items.length) : wasMade;
      items.push({ call, handover, done });
    }
  }

  return items.filter((item) => !item.done);
};

/**
 * Give the app what couldn't be made or sent.
 *
 * @param accept does something else with it.
 */
export const handBack = (items: Item[], accept = deliver) => {
  for (const item of items) item.done = false;

  for (const { signed, items: all } of new Set(items.map((item) => item.handover))) {
    const calls: number[] = [];
    all.forEach((item, position) => {
      if (!item.done) calls.push(position);
      item.done = true;
    });
    accept({ ...signed, calls, blocked });
  }
};

/** Post calls to the app, or keep them for the next page. */
const deliver = (calls: HandBack) => {
  const url = calls.signature && page?.fallback;
  const body = JSON.stringify(calls);

  if (url && (!leaving || fitsInFetch(body)))
    originalFetch(url, { method: "POST", body, keepalive: true }).then(
      // Later, where the app says so: 429 and 5xx. Other answers settle it.
      ({ status }) => status > 428 && keepUndelivered(calls),
      // Of a page that was left meanwhile, the request goes on by itself.
      () => leaving || keepUndelivered(calls),
    );
  // A beacon says at once whether there is room for it: browsers let 64 KiB outlive a
  // page.
  else if (!url || !navigator.sendBeacon(url, body)) keepUndelivered(calls);
};

/**
 * Whether to use `fetch` though the page is being left.
 *
 * Under `Referrer-Policy: no-referrer`, Firefox says that a beacon's origin is null,
 * which the app refuses where nothing else tells whose page it is: without encryption.
 * A `fetch` doesn't say at once whether there is room for it. So it has to be small,
 * and there mustn't be messages of ours that take room too.
 */
const fitsInFetch = (body: string) =>
  !isSecureContext && !main && (room -= body.length) > 0;

/** What such requests may have in all; a character takes up to three bytes. */
let room = 20_000;

const keepUndelivered = (calls: HandBack) => add("undelivered", calls);

/**
 * Keep what may have arrived or not. The next page forgets it when Mixpanel answers
 * there, and else hands it back.
 */
export const keepUnacknowledged = (calls: HandBack) => add("unacknowledged", calls);

/** Mixpanel can't be reached: so it never got what earlier pages were sending. */
export const handBackUnacknowledged = () => {
  for (const calls of remove("unacknowledged")) deliver({ ...calls, blocked });
};
