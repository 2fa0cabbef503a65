// What has to outlive the page, for each project of a site by itself. Browsers may
// refuse storage: then all works but this.

import { safely } from "./debug";
import { page } from "./page";
import type { HandBack } from "./types";

interface Lists {
  /** The ids of hand-overs whose calls were made. */
  made: string[];
  /** Calls that nobody would take, and that no server has: the next page sees to them. */
  undelivered: HandBack[];
}

const keyOf = (name: keyof Lists) => `${page!.token}_mengpaneel_${name}`;

export const load = <Name extends keyof Lists>(name: Name): Lists[Name] =>
  safely(() => JSON.parse(localStorage[keyOf(name)] || 0)) || [];

// The site's storage isn't ours alone: older entries make room.
const save = <Name extends keyof Lists>(name: Name, list: Lists[Name]) =>
  safely(() => (localStorage[keyOf(name)] = JSON.stringify(list.slice(-200))));

export const add = <Name extends keyof Lists>(name: Name, entry: Lists[Name][number]) =>
  save(name, [...load(name), entry] as Lists[Name]);

/** Return the entries of a list, which is empty from then on. */
export const remove = <Name extends keyof Lists>(name: Name): Lists[Name] => {
  const list = load(name);
  save(name, [] as unknown as Lists[Name]);
  return list;
};
