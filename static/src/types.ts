// The words of the script. Nothing of this file is served.

import type { Call, MengpaneelScript, MixpanelInstance } from "../mengpaneel";

/** The data element of a page: docs/protocol.md, "On a page". */
export interface PageData {
  token: string;
  config: Record<string, unknown>;
  library: string | null;
  calls?: [once: string | null, calls: Call[]][];
  /** The token by which the calls are acknowledged: see `SignedCalls`. */
  handover?: string;
  /** Where that is done. */
  acks?: string;
  fallback?: string;
  /** Whether the visitor may not be tracked. */
  refused?: boolean;
  /** Whether the visitor hasn't been asked yet. */
  unasked?: boolean;
  /** The second script, for a library that keeps what it knows in no cookie. */
  memory?: string;
  /** The name of the library's own cookie, with what follows it. */
  cookie?: string;
  /** The ids of a new visitor, which the library is to go on with. */
  ids?: object;
  debug?: unknown;
}

/** Calls as a response carried them: its text to the letter, and how it is signed. */
export interface SignedCalls {
  text: string;
  signature?: string | null;
  /**
   * The token of this hand-over, if the server keeps it until it is acknowledged, and
   * sends it itself if it isn't. Then nothing of it needs to be kept here.
   */
  handover?: string | null;
  /** The positions of the calls that are still to be made; all, where it is missing. */
  calls?: number[];
}

/** What the app is given back: docs/protocol.md, "Handing calls back". */
export interface HandBack extends SignedCalls {
  calls: number[];
}

/** All calls of one response, and what has become of them. */
export interface HandOver {
  signed: SignedCalls;
  items: Item[];
  /**
   * How many of its calls are still to be made, and how many messages of them Mixpanel
   * has still to take. At 0 it is acknowledged; what fails stays open. `NaN`, which
   * counts no further, is that of a hand-over that isn't this page's to acknowledge.
   */
  openCount: number;
}

/** One call of a hand-over. */
export interface Item {
  wire: Call;
  handOver: HandOver;
  /**
   * Whether it needs no more: a message of it is on its way, or it was made earlier, or
   * handed back. A call without a message, such as `identify`, never is: it goes back
   * with the others of its hand-over, which mean little without it.
   */
  done: boolean;
}

/** https://www.w3.org/TR/trusted-types/ */
export interface ScriptPolicy {
  createScriptURL(url: string): string;
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
    persistence: string;
    persistence_name: string;
    disable_persistence?: boolean;
  };
  get_api_host(kind: string): string;
  get_property(name: string): unknown;
  has_opted_out_tracking(): boolean;
  register(properties: object): void;
  register_once(properties: object): void;
  reset(): void;
  unregister(name: string): void;
  add_hook(name: string, hook: (message: unknown) => unknown): void;
  [name: string]: unknown;
}

/** Both scripts together: what one has of the other. */
declare module "../mengpaneel" {
  interface MengpaneelScript {
    /** Of the second script: see `share` in `instance.ts`. */
    share?(main: Library, page: PageData | undefined): string;
  }
}

declare global {
  interface Navigator {
    /** https://www.w3.org/TR/gpc/ */
    globalPrivacyControl?: boolean;
  }

  interface Window {
    mixpanel?: unknown;
  }

  /** Shorter without `window.`; not every browser has the first. */
  const trustedTypes: { createPolicy(name: string, rules: ScriptPolicy): ScriptPolicy };
  const Mengpaneel: MengpaneelScript;
}
