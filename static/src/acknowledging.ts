// Telling the app what Mixpanel has taken. What it isn't told of, it sends itself.

import { postToApp } from "./app";
import { page } from "./page";

/** The tokens of hand-overs that the app is still to be told of. */
const tokens: string[] = [];

let timer = 0;

/** Tell the app of a hand-over, together with those that follow within a second. */
export const acknowledge = (token: string) => {
  tokens.push(token);
  timer ||= setTimeout(postTokens, 1000);
};

/** Tell it now. What it couldn't take goes with the next ones. */
export const postTokens = () => {
  timer = 0;
  // As many as it takes at once.
  const some = tokens.splice(0, 100);
  if (some[0]) postToApp(page?.acks, some.join(" "), () => tokens.push(...some), true);
};
