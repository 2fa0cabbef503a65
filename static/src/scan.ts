// The data elements of pages: one in the first, and one in each that Turbo shows.

import { documentProperty, globalVariable } from "./browser";
import { safely } from "./debug";
import { resume } from "./handover";
import { share } from "./instance";
import { adopt, check, load, loadMemory, root, standIn } from "./library";
import { page, setPage } from "./page";
import { enqueue, enqueueCalls } from "./queue";
import type { PageData } from "./types";

export const scan = () => {
  for (
    let element: HTMLScriptElement;
    (element = (documentProperty("scripts") as any).mengpaneel);
    // Then no snapshot that Turbo or htmx takes of the page has it.
    element.remove()
  )
    safely(() => read(element.text, element.dataset.signature));
};

/** The data of a page whose visitor hasn't consented. */
let withheld: PageData | null;

const read = (text: string, signature?: string) => {
  const data: PageData = JSON.parse(text);

  if (page) setPage(data);
  else {
    withheld = data;
    if (data.library && !globalVariable("mixpanel")) standIn(data);
    if (!data.unasked) consent(!isDeclined(data));
  }
  if (data.calls) enqueueCalls({ text, signature, handover: data.handover });
};

/** Begin to track, once the visitor has consented; or forget what has waited for that. */
export const consent = (isGiven: boolean) => {
  const data = withheld;
  if (!data) return;

  if (isGiven) {
    withheld = null;
    setPage(data);
    if (root) delete root.push;
    loadMemory(() => {
      // A library of the page's own may be there first.
      share();
      // Ours isn't: by `async`, whatever scripts of its own the page has in order would
      // wait for it. Nothing is done when it fails: Firefox gives up what a page loads half
      // a second before it leaves it for the next, and tells that in the same way.
      if (root) load(data.library!, check);
    });
    adopt();
    enqueue(resume());
  } else if (root) {
    root.length = 0;
    root.push = () => 0;
  }
};

/**
 * Whether the app says that the visitor is not to be tracked, or their browser. The app
 * knows that of those for whom it makes a page, but not of those who get it from a cache:
 * a page with calls was made for its visitor, and `ignore_dnt` is how the app says that it
 * has decided otherwise.
 */
const isDeclined = ({ refused, calls, config }: PageData) =>
  refused ||
  ((navigator.globalPrivacyControl || (navigator.doNotTrack as any) == 1) &&
    !calls?.[0] &&
    !config.ignore_dnt);
