// What is known of the page now, and of what can be sent from it.

import { dataset } from "./browser";
import type { PageData } from "./types";

/** The data of the latest page: Turbo shows several in one window. */
export let page: PageData | undefined;

/** Whether to report, and what the app has to say of it: its strategy and reasons. */
export let debug: unknown = "debug" in dataset;

export const setPage = (data: PageData) => {
  page = data;
  debug = data.debug || debug;
};

/** Whether the page is being left: what isn't sent at once is not sent from here. */
export let leaving = false;

export const setLeaving = (value: boolean) => {
  leaving = value;
};

/**
 * Whether the library or Mixpanel's API is kept from this visitor. Unknown until the
 * library came, or the page was loaded without it.
 */
export let blocked: boolean | undefined;

export const setBlocked = (value: boolean) => {
  blocked = value;
};
