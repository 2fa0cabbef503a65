// The data elements of pages: one in the first, and one in each that Turbo shows.

import { documentProperty, globalVariable } from "./browser";
import { safely } from "./debug";
import { resume } from "./handover";
import { adopt, boot } from "./library";
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

const read = (text: string, signature?: string) => {
  const data: PageData = JSON.parse(text);
  const isFirst = !page;
  if (isFirst && isDeclined(data)) return;

  setPage(data);
  if (isFirst) {
    if (data.library && !globalVariable("mixpanel")) safely(() => boot(data));
    adopt();
    enqueue(resume());
  }
  if (data.calls) enqueueCalls({ text, signature, handover: data.handover });
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
