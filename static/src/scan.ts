// The data elements of pages: one in the first, and one in each that Turbo shows.

import { documentProperty, globalVariable } from "./browser";
import { safely } from "./debug";
import { adopt, boot } from "./library";
import { page, setPage } from "./page";
import { enqueue } from "./queue";
import { remove } from "./storage";
import type { PageData, SignedCalls } from "./types";

/** Pages whose calls wait for their turn. */
const waiting: SignedCalls[] = [];

export const scan = () => {
  for (
    let element: HTMLScriptElement;
    (element = (documentProperty("scripts") as any).mengpaneel);
    // Then no snapshot that Turbo or htmx takes of the page has it.
    element.remove()
  )
    safely(() => read(element.text, element.dataset.signature));
};

const read = (text: string, signature?: string) => {
  const data: PageData = JSON.parse(text);
  const isFirst = !page;
  if (isFirst && isDeclined(data)) return;

  setPage(data);
  if (isFirst) {
    if (data.library && !globalVariable("mixpanel")) safely(() => boot(data));
    adopt();
    remove("undelivered").map(enqueue);
  }
  if (data.calls) waiting.push({ text, signature });

  // Two tabs that load the next page of one redirect at the same time would both make
  // its calls. Of two events with one id Mixpanel drops the second, but an update that
  // adds up would count twice. Browsers have locks on `https:` and on localhost.
  const turn = data.races && navigator.locks?.request("mengpaneel", runExclusively);
  if (turn) turn.catch(runExclusively);
  else runExclusively();
};

/**
 * Whether the visitor's browser says that it is not to be tracked. The app knows that
 * of those for whom it makes a page, but not of those who get it from a cache: a page
 * with calls was made for its visitor, and `ignore_dnt` is how the app says that it has
 * decided otherwise.
 */
const isDeclined = ({ calls, config }: PageData) =>
  (navigator.globalPrivacyControl || navigator.doNotTrack == "1") &&
  !calls?.[0] &&
  !config.ignore_dnt;

/** Make the calls of a page, and keep its lock until other tabs know of it. */
const runExclusively = () => {
  waiting.splice(0, 1).map(enqueue);
  // Browsers tell their tabs of what is stored some milliseconds later.
  return new Promise((done) => setTimeout(done, 200));
};

/** Make the calls of pages that are left before their turn. */
export const runNow = () => waiting.splice(0).map(enqueue);
