// The instance of Mixpanel's library on which calls are made.

import { safely } from "./debug";
import { page, setBlocked } from "./page";
import type { Library } from "./types";

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

/** The library without profiles: `set_group` and its kin do their other half. */
export let grouping: Library;

/**
 * Exchange with the app who the visitor is, where the library keeps that in no cookie:
 * then there is the second script.
 *
 * @return what is added to the announcement of a request.
 */
export const share = () => safely(() => main && Mengpaneel.share?.(main, page)) || "";

/**
 * @param hook is given the library's events, and returns null for those that it is not
 *   to send.
 */
export const setInstance = (mixpanel: Library, hook: (message: unknown) => unknown) => {
  main = mixpanel;
  share();
  // A library that isn't made so makes no calls of ours.
  setBlocked(
    !safely(() => {
      mixpanel.add_hook("before_send_events", hook);
      immediate = Object.create(mixpanel);
      immediate.config = Object.create(mixpanel.config);
      immediate.config.api_transport = "sendBeacon";
      // Its private names differ from build to build: so they are found by value.
      for (const key in mixpanel) if (mixpanel[key] === true) immediate[key] = false;
      // It sends its own `$identify` and `$create_alias` by other options, past the hook.
      immediate.track = (event: string, properties?: object, _?: unknown, done?: any) => {
        mixpanel.track.call(immediate, event, properties);
        done?.();
      };
      grouping = Object.create(immediate);
      return (grouping.people = new Proxy({}, { get: () => () => 0 }));
    }),
  );
};
