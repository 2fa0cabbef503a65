// Messages on their way to Mixpanel: in order, one request at a time and kind.

import { originalFetch } from "./browser";
import { handBack, handBackUnacknowledged } from "./handover";
import { ENDPOINTS, main } from "./instance";
import { blocked, leaving, setBlocked } from "./page";
import { remove } from "./storage";
import type { Item, Kind } from "./types";

type Message = [message: unknown, item: Item];

/** What the library has made of our calls. */
export const waiting: Record<Kind, Message[]> = { people: [], groups: [], events: [] };

/** What is in the request under way. */
export const underWay: Record<Kind, Item[]> = { people: [], groups: [], events: [] };

/** Send what waits. When the page is left, that can't wait for what is under way. */
export const send = () => {
  for (const kind in ENDPOINTS)
    while (waiting[kind][0] && (leaving || !underWay[kind][0]))
      // So small that several outlive a page: browsers have 64 KiB for that in all.
      post(kind, waiting[kind].splice(0, 20));
};

const post = async (kind: Kind, batch: Message[]) => {
  const { config } = main!;
  const route = config.api_routes[ENDPOINTS[kind]];
  // As the library asks: with an answer in JSON, and the visitor's address if it may.
  const url = `${main!.get_api_host(kind)}/${route}?verbose=1&ip=${+config.ip}`;
  const body = new URLSearchParams({
    data: JSON.stringify(batch.map(([message]) => message)),
  });
  const items = batch.map(([, item]) => item);

  if (leaving) return navigator.sendBeacon(url, body) || handBack(items);

  const request = (keepalive?: boolean) =>
    originalFetch(url, { method: "POST", body, keepalive });

  underWay[kind] = items;
  const answer = await request(true)
    // What is too large to outlive the page isn't too large for a page that stays.
    .catch(() => leaving || request().catch(() => setBlocked(navigator.onLine)) as any)
    // Somebody else may answer: a WiFi that wants a login.
    .then((response) => (response as Response).json())
    .catch(() => 0);
  underWay[kind] = [];
  // Then it was handed back or kept when the page was left.
  if (leaving) return;

  if (answer?.status) remove("unacknowledged");
  else handBack(items);

  if (blocked) handBackUnacknowledged();
  send();
};
