// Calls as they come from the app, and how they go back to it.

import type { Call } from "../mengpaneel";
import { originalFetch } from "./browser";
import { blocked, leaving, page } from "./page";
import { add, load, remove } from "./storage";
import type { HandBack, Handover, Item, PageData, SignedCalls } from "./types";

/**
 * Return those calls of a response that are still to be made.
 *
 * Back, forward, reload and a duplicated tab show a page once more: its hand-overs have
 * an id, by which this browser knows that it has made their calls.
 */
export const itemsToMake = ({ text, signature, calls: only }: SignedCalls): Item[] => {
  const data: PageData | Call[] = JSON.parse(text);
  const items: Item[] = [];
  const handover = { text, signature, items };

  for (const [once, calls] of (data as PageData).calls || [[null, data as Call[]]]) {
    const wasMade = load("made").includes(once!);
    if (once && !wasMade) add("made", once);

    for (const call of calls) {
      const done = only ? !only.includes(items.length) : wasMade;
      items.push({ call, handover, done });
    }
  }

  return items.filter((item) => !item.done);
};

/** Give the app what couldn't be made or sent, or keep it for the next page. */
export const handBack = (items: Item[]) => returnItems(items, deliver);

/**
 * Keep what may have arrived or not. The next page forgets it when Mixpanel answers
 * there, and else hands it back.
 */
export const keepUnacknowledged = (items: Item[]) =>
  returnItems(items, (body) => add("unacknowledged", body));

/** Mixpanel can't be reached: so it never got what earlier pages were sending. */
export const handBackUnacknowledged = () => {
  for (const body of remove("unacknowledged")) deliver({ ...body, blocked });
};

const returnItems = (items: Item[], giveTo: (body: HandBack) => void) => {
  for (const item of items) item.done = false;

  for (const handover of new Set(items.map((item) => item.handover))) {
    const { text, signature } = handover;
    const calls: number[] = [];
    handover.items.forEach((item, position) => {
      if (!item.done) calls.push(position);
      item.done = true;
    });
    giveTo({ text, signature, calls, blocked });
  }
};

const deliver = (handBack: HandBack) => {
  const url = handBack.signature && page?.fallback;
  const body = JSON.stringify(handBack);
  const keep = () => add("undelivered", handBack);

  if (url && !leaving)
    originalFetch(url, { method: "POST", body, keepalive: true }).then(
      // Later, where the app says so: 429 and 5xx. Other answers settle it.
      ({ status }) => status > 428 && keep(),
      // Of a page that was left meanwhile, the request goes on by itself.
      () => leaving || keep(),
    );
  // A beacon says at once whether there is room for it: browsers let 64 KiB outlive a
  // page.
  else if (!url || !navigator.sendBeacon(url, body)) keep();
};
