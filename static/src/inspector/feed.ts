// What the server tells the page, as inspector/feed.py writes it.

import type { Json } from "./json";

/** One flush that a recorded call went through. */
export interface Flush {
  strategy: string;
  /** Why each strategy that was asked before declined. */
  declined: Record<string, string>;
  /** Seconds since the epoch. */
  at: number;
  /** The request, such as "POST /sign-up"; empty for a job. */
  during: string;
  /** Where the hand-over is; empty if nobody is to acknowledge it. */
  state: State;
  /** The same in words. */
  became: string;
  /** The lines of the app that recorded the call, the one that made it first. */
  sources: Source[];
}

/** Where a hand-over is. */
export type State =
  | ""
  | "waiting"
  | "acknowledged"
  | "settled"
  | "withdrawn"
  | "sent"
  | "dropped";

/** A line of the app: "shop/views.py:42", and the function that it is in, if known. */
export type Source = [place: string, name: string];

/** One record that was sent to the inspector. */
export interface Arrival {
  id: number;
  /** Seconds since the epoch. */
  at: number;
  endpoint: string;
  record: Json;
  /** Why Mixpanel would refuse it; empty if it would take it. */
  problem: string;
  /** What Mixpanel would change. */
  remarks: string[];
  /** Why it isn't in the app's tracking plan; empty if it is, or if there is none. */
  undeclared: string;
  /** The id of the first arrival of the same event. */
  duplicateOf: number | null;
  person: string;
  /** Oldest first; empty if the app didn't record it. */
  flushes: Flush[];
  /** The user agent that sent it. */
  agent: string;
  /** The names of the properties that the app gave; null if that is not known. */
  own: string[] | null;
}

/** A recorded call that has become an arrival, which is shown in its place. */
export interface ArrivedCall {
  id: number;
  arrival: number;
}

/** A recorded call that hasn't arrived. */
export interface FlushedCall {
  id: number;
  arrival: null;
  /** Seconds since the epoch. */
  at: number;
  /** The method, such as "people.set". */
  name: string;
  /** Its names and arguments in turn: [["people", "set"], [{"Plan": "pro"}]]. */
  wire: Json[][];
  person: string;
  /** Oldest first; none if it was dropped before any. */
  flushes: Flush[];
  /** Why it will not arrive; empty while it may. */
  failure: string;
}

/** A call that the app hasn't recorded, or that goes nowhere; or a part of one. */
export interface UnrecordedCall {
  id: number;
  /** Seconds since the epoch. */
  at: number;
  /** The method, such as "people.set". */
  name: string;
  event: string;
  reason: string;
  /** The file and the line of the app; empty if they aren't known. */
  origin: string;
  /** The request; empty for a job. */
  during: string;
  /** Where in the call is what isn't recorded; empty for all of it. */
  missing: string[];
  /** The id of the event, if it has one. */
  insertId: string;
}

/** What is new or changed since a revision. */
export interface Feed {
  /** The revision to ask with the next time. */
  after: number;
  /** The revision at which everything was last cleared. */
  cleared: number;
  arrivals: Arrival[];
  calls: (FlushedCall | ArrivedCall)[];
  unrecorded: UnrecordedCall[];
}

/**
 * Ask the server for what has changed since a revision. It answers when there is
 * something, or after a while.
 *
 * @param row The key of a row that is wanted, however old it is.
 */
export async function fetchFeed(
  after: number,
  row: string,
  signal: AbortSignal,
): Promise<Feed> {
  const query = new URLSearchParams({ after: String(after), wait: "1" });
  if (row) query.set("row", row);
  const response = await fetch(`${document.body.dataset.arrivals}?${query}`, { signal });
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

/** Let the server forget everything. */
export async function clearServer(): Promise<void> {
  await fetch(document.body.dataset.clear!, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: "{}",
  });
}
