// The words of the script. Nothing of this file is served.

import type { Call, MixpanelInstance } from "../mengpaneel";

/** `people`, `groups` or `events`: so the library calls its kinds of messages. */
export type Kind = string;

/** The data element of a page: docs/protocol.md, "On a page". */
export interface PageData {
  token: string;
  config: Record<string, unknown>;
  library: string | null;
  calls?: [once: string | null, calls: Call[]][];
  races?: boolean;
  fallback?: string;
  debug?: unknown;
}

/** Calls as a response carried them: its text to the letter, and how it is signed. */
export interface SignedCalls {
  text: string;
  signature?: string | null;
  /** The positions of the calls that are still to be made; all, where it is missing. */
  calls?: number[];
}

/** What the app is given back: docs/protocol.md, "Handing calls back". */
export interface HandBack extends SignedCalls {
  calls: number[];
  blocked?: boolean;
}

/** All calls of one response, which share its signature. */
export interface Handover {
  signed: SignedCalls;
  items: Item[];
}

/** One call, and what has become of it. */
export interface Item {
  call: Call;
  handover: Handover;
  /**
   * Whether it needs no more: a message of it is on its way, or it was made earlier, or
   * handed back. A call without a message, such as `identify`, never is: it goes back
   * with the others of its hand-over, which mean little without it.
   */
  done: boolean;
}

/** An instance of Mixpanel's library: what the script reads and calls of it. */
export interface Library extends MixpanelInstance {
  people: Record<string, unknown>;
  config: {
    api_host: string;
    api_routes: Record<string, string>;
    api_transport: string;
    ip: boolean | 0 | 1;
    token: string;
  };
  get_api_host(kind: Kind): string;
  get_distinct_id(): string;
  unregister(name: string): void;
  add_hook(name: string, hook: (message: unknown) => unknown): void;
  [name: string]: unknown;
}

declare global {
  interface Navigator {
    /** https://www.w3.org/TR/gpc/ */
    globalPrivacyControl?: boolean;
  }

  interface Window {
    mixpanel?: unknown;
    trustedTypes?: {
      createPolicy(
        name: string,
        rules: { createScriptURL(url: string): string },
      ): { createScriptURL(url: string): string };
    };
  }
}
