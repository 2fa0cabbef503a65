// Messages on their way to Mixpanel: in order, one request at a time.

import { originalFetch } from "./browser";
import { handBack, handBackUnacknowledged, settle } from "./handover";
import { main } from "./instance";
import { blocked, leaving, setBlocked } from "./page";
import { remove } from "./storage";
import type { Item } from "./types";

type Message = [message: unknown, item: Item];

/** What the library has made of our calls. */
export const waiting: Message[] = [];

/** What is in the request under way. */
export let underWay: Item[] = [];

/** Send what waits. When the page is left, that can't wait for what is under way. */
export const send = () => {
  while (waiting[0] && (leaving || !underWay[0]))
    // So small that several outlive a page: browsers have 64 KiB for that in all.
    post(waiting.splice(0, 20).filter(([, item]) => !item.done));
};

const post = async (batch: Message[]) => {
  // All of it was handed back, with what was to be sent before.
  if (!batch[0]) return;

  const { config } = main!;
  // As the library asks: with an answer in JSON, and the visitor's address if it may.
  const url = `${main!.get_api_host("events")}/${config.api_routes.track}?verbose=1&ip=${+config.ip}`;
  const body = new URLSearchParams({
    data: JSON.stringify(batch.map(([message]) => message)),
  });
  const items = batch.map(([, item]) => item);

  // Nobody will know whether it arrives.
  if (leaving) return navigator.sendBeacon(url, body) || handBack(items);

  const request = (keepalive?: boolean) =>
    originalFetch(url, { method: "POST", body, keepalive });

  underWay = items;
  const answer = await request(true)
    // What is too large to outlive the page isn't too large for a page that stays.
    .catch(() => leaving || request().catch(() => setBlocked(navigator.onLine)) as any)
    // Somebody else may answer: a WiFi that wants a login.
    .then((response) => (response as Response).json())
    .catch(() => 0);
  underWay = [];

  if (answer?.status) {
    for (const item of items) {
      item.done = true;
      settle(item);
    }
    remove("unacknowledged");
  } else if (!leaving) handBack(items);

  if (blocked) handBackUnacknowledged();
  send();
};
