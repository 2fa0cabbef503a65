// What the server tells the page, as inspector/app.py writes it.

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
  /** What became of the hand-over, in words; empty if nobody is to acknowledge it. */
  became: string;
}

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
  /** The id of the first arrival of the same event. */
  duplicateOf: number | null;
  person: string;
  /** Oldest first; empty if the app didn't record it. */
  flushes: Flush[];
  /** The user agent that sent it. */
  agent: string;
}

/** One recorded call that has been flushed. */
export interface FlushedCall {
  id: number;
  /** Seconds since the epoch. */
  at: number;
  /** The method, such as "people.set". */
  name: string;
  /** Its names and arguments in turn: [["people", "set"], [{"Plan": "pro"}]]. */
  wire: Json[][];
  person: string;
  /** Oldest first; at least one. */
  flushes: Flush[];
  arrived: boolean;
  /** Why it will not arrive; empty while it may. */
  failure: string;
}

/** What is new or changed since a revision. */
export interface Feed {
  /** The revision to ask with the next time. */
  after: number;
  /** The revision at which everything was last cleared. */
  cleared: number;
  arrivals: Arrival[];
  calls: FlushedCall[];
}

/** Ask the server for what has changed since a revision. */
export async function fetchFeed(after: number): Promise<Feed> {
  const response = await fetch(`${document.body.dataset.arrivals}?after=${after}`);
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
