// Messages on their way to Mixpanel: in order, one request at a time.

import { originalFetch } from "./browser";
import { handBack, settle } from "./handover";
import { main } from "./instance";
import { leaving, setBlocked } from "./page";
import type { Item } from "./types";

type Message = [message: unknown, item: Item];

/** What the library has made of our calls. */
export let waiting: Message[] = [];

/** What is in the request under way. */
let underWay: Item[] | null;

/** Send what waits. When the page is left, that can't wait for what is under way. */
export const send = () => {
  // Nor can it later: Firefox never tells a page that it shows again what was answered.
  if (leaving) underWay = null;
  while (waiting[0] && !underWay)
    // So small that several outlive a page: browsers have 64 KiB for that in all.
    post(waiting.splice(0, 20));
};

const post = async (batch: Message[]) => {
  const { config } = main!;
  // As the library asks: with an answer in JSON, and the visitor's address if it may.
  const url = `${main!.get_api_host("events")}/${config.api_routes.track}?verbose=1&ip=${+config.ip}`;
  const body = new URLSearchParams({
    data: JSON.stringify(batch.map(([message]) => message)),
  });
  const items = batch.map(([, item]) => item);
  for (const item of items) item.done = true;

  // Nobody will know whether it arrives.
  if (leaving) return navigator.sendBeacon(url, body) || giveUp(items);

  const request = (keepalive?: boolean) =>
    originalFetch(url, { method: "POST", body, keepalive });

  underWay = items;
  const answer = await request(true)
    // What is too large to outlive the page isn't too large for a page that stays.
    .catch(() => leaving || request().catch(() => setBlocked(navigator.onLine)) as any)
    // Somebody else may answer: a WiFi that wants a login.
    .then((response) => (response as Response).json())
    .catch(() => 0);
  if (underWay == items) underWay = null;

  if (answer?.status) for (const item of items) settle(item.handOver);
  else if (!leaving) giveUp(items);
  send();
};

/** Hand back what wasn't sent, and of the same hand-overs what is still to be. */
const giveUp = (items: Item[]) => {
  for (const item of items) item.done = false;
  handBack(items);
  waiting = waiting.filter(([, item]) => !item.done);
};
