// Errors stay in here, and are seen where somebody looks for them.

import { dataset } from "./browser";

/** Whether to report, and what the app has to say of it: its strategy and reasons. */
export let debug: unknown = "debug" in dataset;

export const setDebug = (value: unknown) => {
  debug = value || debug;
};

export const report = (what: unknown) => console.debug("Mengpaneel", what, debug);

/** Call a function, of whose errors the page hears nothing. */
export const safely = <Result>(action: () => Result): Result | undefined => {
  try {
    return action();
  } catch (error) {
    if (debug) report(error);
  }
};
