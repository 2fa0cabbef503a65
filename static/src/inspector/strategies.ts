import type { Flush } from "./feed";

/** What each strategy does with the calls it takes, in the order they are asked. */
export const STRATEGIES: Readonly<Record<string, string>> = {
  Delayed: "kept in the session for the next page",
  ClientSide: "handed to the page",
  CapableClientSide: "handed to the page's script",
  AsyncServerSide: "sent by the server in the background",
  ServerSide: "sent by the server during the request",
};

/** Stands for the strategy of what this app didn't record. */
export const OTHER = "Other";

/** Return the strategy that took a call last. */
export function lastStrategy(flushes: Flush[]): string {
  return flushes.at(-1)?.strategy ?? OTHER;
}

/** Return the CSS class that gives a strategy its colour. */
export function strategyClass(name: string): string {
  return `strategy-${name.replace(/[^A-Za-z]/g, "")}`;
}
