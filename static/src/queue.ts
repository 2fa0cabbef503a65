// The calls of the page and of responses, made in the order in which they came.

import type { Call } from "../mengpaneel";
import { report, safely } from "./debug";
import { handBack, itemsToMake, settle } from "./handover";
import { grouping, immediate, main } from "./instance";
import { send, waiting } from "./outbox";
import { blocked, debug } from "./page";
import type { Item, SignedCalls } from "./types";

/** What waits for the library. */
export const queue: Item[] = [];

/** The call that is being made: the library's messages meanwhile are of it. */
let current: Item | null;

export const enqueue = (items: Item[]) => {
  queue.push(...items);
  flush();
};

export const enqueueCalls = (signed: SignedCalls) => enqueue(itemsToMake(signed));

/** Make what is queued, once the library is there; hand it back if it won't be. */
export const flush = () =>
  safely(() => {
    if (blocked) return handBack(queue.splice(0));
    if (!main) return;

    for (current of queue.splice(0))
      safely(() => {
        perform(current!.wire);
        settle(current!.handOver);
      });
    current = null;
    send();
  });

/**
 * Take the messages of our calls from the library, and leave it those of the page.
 *
 * The library adds the user who is signed in by now, also to an event that says whose it
 * is, and that it happened before somebody was.
 */
export const hook = (message: any) => {
  if (!current) return message;
  const own = current.wire[1].find((value: any) => value?.distinct_id) as any;
  if (own && !own.$user_id) delete message.properties.$user_id;
  current.handOver.openCount++;
  waiting.push([message, current]);
  return null;
};

/** Make a call, unless it is of a profile or a group: those are the server's. */
const perform = (call: Call) => {
  if (debug) report(JSON.stringify(call));
  const [[method], args] = call as [string[], unknown[]];
  if (/^people$|^get_group$/.test(method)) return;

  const sends = /^track|^alias|^identify/.test(method);
  const target: any = /_group$/.test(method) ? grouping : sends ? immediate : main;
  // What every object has is no method of the library.
  (method in {} || target[method]).apply(target, args);

  // As long as the library remembers an alias, it takes an `identify` with it for a
  // repetition, and goes on with the old id.
  if (method == "alias") main!.unregister("__alias");
};
