// Calls as they come from the app, and how they go back to it.

import type { Call } from "../mengpaneel";
import { acknowledge } from "./acknowledging";
import { postToApp } from "./app";
import { main } from "./instance";
import { blocked, page } from "./page";
import { add, load, remove } from "./storage";
import type { HandBack, HandOver, Item, PageData, SignedCalls } from "./types";

/**
 * Return those calls of a response that are still to be made.
 *
 * Back, forward, reload and a duplicated tab show a page once more; a cache or a service
 * worker gives a response again.
 */
export const itemsToMake = (signed: SignedCalls): Item[] => {
  const data: PageData | Call[] = JSON.parse(signed.text);
  const parts = (data as PageData).calls;
  const isRepeated = wasMade(signed.handover);
  const items: Item[] = [];
  // What was made before, whoever made it acknowledges: it may be on its way yet.
  const handOver: HandOver = { signed, items, openCount: isRepeated ? NaN : 1 };

  for (const [once, calls] of parts || [[null, data as Call[]] as const]) {
    const isMade = parts ? wasMade(once) : isRepeated;

    for (const call of calls) {
      // Of what was handed back before, only the calls that were.
      const done = signed.calls ? !signed.calls.includes(items.length) : isMade;
      items.push({ wire: call, handOver, done });
      if (!done) handOver.openCount++;
    }
  }

  settle(handOver);
  return items.filter((item) => !item.done);
};

/** Whether this browser has made what has the id, if it has one; from now on it has. */
const wasMade = (id?: string | null) => {
  const isMade = load("made").includes(id!);
  if (id && !isMade) add("made", id);
  return isMade;
};

/** Note that a call was made, or that Mixpanel has taken a message of it. */
export const settle = (handOver: HandOver) => {
  const token = handOver.signed.handover;
  if (--handOver.openCount == 0 && token) acknowledge(token);
};

/** Give the app what is left of hand-overs of which something wasn't made or taken. */
export const handBack = (items: Item[]) => {
  for (const handOver of new Set(items.map((item) => item.handOver))) {
    const calls: number[] = [];
    handOver.items.forEach((item, position) => {
      if (!item.done) calls.push(position);
      item.done = true;
    });
    if (calls.length) deliver({ ...handOver.signed, calls });
  }
};

/** Post calls to the app; keep those that only this browser has for the next page. */
const deliver = (calls: HandBack) =>
  postToApp(
    calls.signature && page?.fallback,
    JSON.stringify({ ...calls, blocked }),
    () => calls.handover || add("undelivered", calls),
    // Messages of ours take room too.
    calls.handover || !main,
  );

/**
 * Give the app what it couldn't take on earlier pages. If it takes nothing, return what
 * can be made here.
 *
 * Somebody else may use the browser by now: so that is what says itself whose it is.
 */
export const resume = (): Item[] =>
  remove("undelivered").flatMap((calls) => {
    if (!calls.signature || !page!.fallback)
      return itemsToMake(calls).filter(isStamped);
    deliver(calls);
    return [];
  });

const isStamped = ({ wire: [names, args] }: Item) =>
  /^track/.test("" + names) && args.some((value: any) => value?.distinct_id);
