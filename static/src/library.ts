// How the library comes to the page, or doesn't.

import { documentProperty, globalVariable, nonce } from "./browser";
import { safely } from "./debug";
import { main, setInstance } from "./instance";
import { page, setBlocked } from "./page";
import { flush, hook } from "./queue";
import type { Library, PageData, ScriptPolicy } from "./types";

/** Whether an instance was found, which may not be in use yet. */
let isFound = false;

/** What stands in for the library until it is there, if we have put something there. */
export let root: any;

export const standIn = ({ token, config }: PageData) => {
  root = window.mixpanel = stub((mixpanel) => mixpanel);
  // What the library asks of it: src/mixpanel-core.js, `init_from_snippet`.
  root.__SV = 1.2;
  root.__loaded = root.config = 0;
  root._i = [[token, config, "mixpanel"]];
  root.init = (token: string, options: object, name?: string) => {
    // The page initialises what we have: its options are added.
    if (!name) return Object.assign(config, options);
    root[name] = stub((mixpanel) => mixpanel);
    root._i.push([token, options, name]);
  };
};

let policy: ScriptPolicy | undefined;

/**
 * Load another script.
 *
 * @param failed is called when it can't be had.
 */
export const load = (url: string, done: () => void, failed?: () => void) =>
  safely(() => {
    const script = documentProperty("createElement").call(
      document,
      "script",
    ) as HTMLScriptElement;
    script.nonce = nonce;
    script.onload = done;
    script.onerror = failed as any;
    script.src =
      safely(() =>
        // A policy may be made once only.
        (policy ||= trustedTypes.createPolicy("mengpaneel", {
          createScriptURL: (url) => url,
        })).createScriptURL(url),
      ) || url;
    documentProperty("head").append(script);
  });

/** Finds in the library what there is a stub of. */
type Find = (mixpanel: any) => any;

/**
 * An array that the library takes for the queue of its snippet, with every method that
 * it will have. Calls become functions in that queue: of an unknown name in it, or of a
 * function that throws, the whole library would die, and names it would reorder.
 *
 * @param find finds in the library what this is a stub of.
 * @param root the stub of the library, if this is of a part of it.
 */
const stub = (find: Find, root?: unknown[]): any =>
  new Proxy([] as any[], {
    get: (target, name: any) => {
      if (name in target) return target[name];
      if (name == "people") return stub((mixpanel) => mixpanel.people, target);
      return (...args: unknown[]) => {
        const method = (mixpanel: any) => find(mixpanel)[name](...args);
        (root || target).push(function (this: unknown) {
          safely(() => method(this));
        });
        return name == "get_group" && stub(method, target);
      };
    },
  });

/**
 * Load the second script if the app doesn't see what the library knows, since that is
 * nothing yet, or in no cookie, or in another one.
 *
 * @param done is called when it is there, which may be at once, or isn't needed, or can't
 *   be had.
 */
export const loadMemory = (done: () => void, mixpanel?: Library) =>
  page?.memory &&
  !(
    Mengpaneel.share ||
    (documentProperty("cookie").includes(page.cookie!) &&
      page.cookie!.includes("mp_" + (mixpanel?.config?.persistence_name || "")))
  )
    ? load(page.memory, done, done)
    : done();

/** Take an instance into use. */
export const use = (mixpanel: Library) => {
  isFound = true;
  loadMemory(() => {
    setInstance(mixpanel, hook);
    flush();
  }, mixpanel);
};

/** Use the library of the page, now or as soon as it runs its queue. */
export const adopt = () =>
  globalVariable("mixpanel")?.push?.(function (this: Library) {
    if (!isFound) use(this);
  });

/** The page is loaded: a library that isn't there by now won't come. */
export const check = () => {
  adopt();
  if (!isFound && page) {
    setBlocked(true);
    flush();
  }
};
