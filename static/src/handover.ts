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
 * Back, forward, reload and a duplicated tab show a page once more, caches and service
 * workers give a response again: hand-overs have an id, by which this browser knows that
 * it has made their calls.
 */
export const itemsToMake = (signed: SignedCalls): Item[] => {
  const data: PageData | Call[] = JSON.parse(signed.text);
  const only = signed.calls;
  const items: Item[] = [];
  const handOver: HandOver = { signed, items, open: 0 };
  let isNew, isRepeated;

  for (const [once, calls] of (data as PageData).calls || [
    [signed.handover ? signed.handover.split(".")[0] : null, data as Call[]],
  ] as const) {
    const wasMade = load("made").includes(once!);
    if (wasMade) isRepeated = true;
    else if (once) add("made", (isNew = once));

    for (const call of calls) {
      // Of what was handed back before, only the calls that were.
      const done = only ? !only.includes(items.length) : wasMade;
      items.push({ call, handOver, done });
      if (!done) handOver.open++;
    }
  }

  // Whoever made them acknowledges them: they may be on their way yet.
  if (isRepeated && !isNew) handOver.open = NaN;
  return items.filter((item) => !item.done);
};

/** Note that a call was made, or that Mixpanel has taken a message of it. */
export const settle = ({ handOver }: Item) => {
  const { handover: token } = handOver.signed;
  if (!--handOver.open && token) acknowledge(token);
};

const handOversOf = (items: Item[]) => new Set(items.map((item) => item.handOver));

/** What the app is to send of a hand-over. */
const rest = ({ signed, items }: HandOver): HandBack => ({
  ...signed,
  calls: [...items.keys()].filter((position) => !items[position].done),
  blocked,
});

/** Give the app what is left of hand-overs of which something wasn't made or taken. */
export const handBack = (items: Item[]) => {
  for (const handOver of handOversOf(items)) {
    const calls = rest(handOver);
    for (const item of handOver.items) item.done = true;
    handOver.open = NaN;
    if (calls.calls.length) deliver(calls);
  }
};

/** Post calls to the app, or keep them for the next page. */
const deliver = (calls: HandBack) => {
  const { handover, signature } = calls;
  postToApp(
    signature && page!.fallback,
    JSON.stringify(calls),
    () => handover || add("undelivered", calls),
    // Messages of ours take room too.
    !!handover || !main,
  );
};

/**
 * Keep what may have arrived or not. The next page forgets it when Mixpanel answers
 * there, and else hands it back.
 */
export const keepUnacknowledged = (items: Item[]) => {
  for (const handOver of handOversOf(items))
    if (!handOver.signed.handover) add("unacknowledged", rest(handOver));
};

/** Mixpanel can't be reached: so it never got what earlier pages were sending. */
export const handBackUnacknowledged = () => {
  for (const calls of remove("unacknowledged")) deliver({ ...calls, blocked });
};

/**
 * Give the app what it didn't take on earlier pages. If it takes nothing, return what
 * can be made here.
 *
 * Somebody else may use the browser by now: so that is what says itself whose it is.
 */
export const resume = (): Item[] =>
  remove("undelivered").flatMap((calls) => {
    if (!calls.signature || !page!.fallback)
      return itemsToMake(calls).filter(({ call: [names, args] }) =>
        /^track/.test("" + names) && args.some((value: any) => value?.distinct_id),
      );
    deliver({ ...calls, blocked });
    return [];
  });
