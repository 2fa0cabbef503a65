// The calls of the page and of responses, made in the order in which they came.

import type { Call } from "../mengpaneel";
import { report, safely } from "./debug";
import { handBack, itemsToMake } from "./handover";
import { immediate, main } from "./instance";
import { send, waiting } from "./outbox";
import { blocked, debug } from "./page";
import type { Item, Kind, SignedCalls } from "./types";

/** What waits for the library. */
export const queue: Item[] = [];

/** The call that is being made: the library's messages meanwhile are of it. */
let current: Item | null;

export const enqueue = (signed: SignedCalls) => {
  queue.push(...itemsToMake(signed));
  flush();
};

/** Make what is queued, once the library is there; hand it back if it won't be. */
export const flush = () =>
  safely(() => {
    if (blocked) return handBack(queue.splice(0));
    if (!main) return;

    for (current of queue.splice(0)) safely(() => perform(current!.call));
    current = null;
    send();
  });

/** Take the messages of our calls from the library, and leave it those of the page. */
export const hookFor = (kind: Kind) => (message: unknown) => {
  if (!current) return message;
  current.done = true;
  waiting[kind].push([message, current]);
  return null;
};

const perform = (call: Call) => {
  if (debug) report(JSON.stringify(call));
  const method = "" + call[0];

  // The library holds profile updates back until `identify` was called on this page,
  // even for a visitor it knows. With the id it has, it sends nothing. It reads its
  // cookie several times, which is slow: other calls do without.
  if (/people|_group/.test(method) && main!.get_property("$user_id"))
    immediate.identify(main!.get_distinct_id());

  const sends = /people|alias|identify|_group|^track/.test(method);
  makeCall(sends ? immediate : main, call);

  // As long as the library remembers an alias, it takes an `identify` with it for a
  // repetition, and goes on with the old id.
  if (method == "alias") main!.unregister("__alias");
};

/** Follow the names of each pair from what the pair before it returned. */
const makeCall = (target: any, [names, args, ...rest]: any[]) => {
  let owner;
  for (const name of names) {
    owner = target;
    // What every object has is no method of the library.
    target = name in {} || target[name];
  }
  target = target.apply(owner, args);
  if (rest[0]) makeCall(target, rest);
};
