// Errors stay in here, and are seen where somebody looks for them.

import { debug } from "./page";

export const report = (what: unknown) => console.debug("Mengpaneel", what, debug);

/** Call a function, of whose errors the page hears nothing. */
export const safely = <Result>(action: () => Result): Result | undefined => {
  try {
    return action();
  } catch (error) {
    if (debug) report(error);
  }
};
