// mengpaneel.js as it is served: see docs/front-ends.md.

import { postTokens } from "./acknowledging";
import { documentProperty, globalVariable } from "./browser";
import { handBack } from "./handover";
import { check, use } from "./library";
import { send } from "./outbox";
import { setLeaving } from "./page";
import { queue } from "./queue";
import { announceRequests } from "./requests";
import { consent, scan } from "./scan";

const begin = () => {
  scan();
  addEventListener("DOMContentLoaded", scan);
  addEventListener("turbo:load", scan);
  addEventListener("load", check);
};

// The second script may have come first. A second copy of this one does nothing.
const earlier = globalVariable("Mengpaneel");
if (!earlier?.use) {
  window.Mengpaneel = { ...earlier, use, consent };
  announceRequests();

  // A page from the back/forward cache goes on.
  addEventListener("pageshow", () => setLeaving(false));
  addEventListener("pagehide", () => {
    setLeaving(true);
    send();
    handBack(queue.splice(0));
    postTokens();
  });

  // A prerendered page may never be shown.
  if (documentProperty("prerendering"))
    addEventListener("prerenderingchange", begin, true as any);
  else begin();
}
