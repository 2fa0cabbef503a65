// The instance of Mixpanel's library on which calls are made.

import { safely } from "./debug";
import { setBlocked } from "./page";
import type { Kind, Library } from "./types";

/** The library's names of the endpoints, by kind. */
export const ENDPOINTS: Record<Kind, string> = {
  people: "engage",
  groups: "groups",
  events: "track",
};

/** The library, once it is there. */
export let main: Library | undefined;

/**
 * The library without its batching.
 *
 * That keeps messages for seconds behind a lock, and loses most of them when the page
 * is replaced within half a second. This inherits everything else (visitor, super
 * properties, opt-out, hooks), and its messages are complete at once. The page's own
 * calls go through the library as ever.
 */
export let immediate: Library;

/** With which words requests tell the app that calls can be made here. */
export let announcement: string;

/**
 * @param hookFor gives the function to which the library hands its messages of a kind,
 *   and which returns null for those that it is not to send.
 */
export const setInstance = (
  mixpanel: Library,
  hookFor: (kind: Kind) => (message: unknown) => unknown,
) => {
  main = mixpanel;
  setBlocked(false);
  // A future library may need it differently: then calls are batched as it does.
  safely(() => {
    announcement = "true; project=" + mixpanel.config.token;
    immediate = Object.create(mixpanel);
    const people = (immediate.people = Object.create(mixpanel.people));
    immediate.config = Object.create(mixpanel.config);
    immediate.config.api_transport = "sendBeacon";
    // Its private names differ from build to build: so they are found by value.
    for (const key in mixpanel) if (mixpanel[key] === true) immediate[key] = false;
    for (const key in people) if (people[key] == mixpanel) people[key] = immediate;
    for (const kind in ENDPOINTS)
      mixpanel.add_hook("before_send_" + kind, hookFor(kind));
  });
};
