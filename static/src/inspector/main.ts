// The inspector's page: what arrives, as it arrives.

import { byId } from "./elements";
import { callKey, entryOfArrival, entryOfCall, type Entry } from "./entries";
import { clearServer, fetchFeed, type Feed } from "./feed";
import { Filters } from "./filters";
import { Rows } from "./rows";
import { lastStrategy } from "./strategies";

/** Milliseconds between an answer and the next question. */
const POLL_INTERVAL = 1000;

type State = "live" | "paused" | "offline";

const rows = new Rows();
const filters = new Filters(rows);

/** The revision up to which the page knows everything; 0: it knows nothing yet. */
let revision = 0;
/** The revision at which everything was last cleared. */
let cleared = 0;
let paused = false;
let timer: ReturnType<typeof setTimeout> | undefined;

function applyFeed(feed: Feed): void {
  const isFirst = revision === 0;
  const isCleared = feed.cleared !== cleared;
  revision = feed.after;
  cleared = feed.cleared;

  if (isCleared) rows.clear();

  for (const call of feed.calls) {
    if (call.arrived) rows.remove(callKey(call.id));
    else rows.put(entryOfCall(call));
  }

  const fresh = feed.arrivals.map(entryOfArrival).filter((entry) => rows.put(entry));
  rows.trim();

  if (feed.calls.length || feed.arrivals.length || isCleared) {
    filters.offerPeople();
    filters.apply();
  }

  if (!isFirst && fresh.length) announce(fresh);
}

function announce(fresh: Entry[]): void {
  const names = fresh.slice(-3).map((entry) => entry.name);
  byId("news").textContent = `${fresh.length} arrived: ${names.join(", ")}`;

  for (const { key } of fresh) rows.get(key)?.node.classList.add("fresh");

  filters.light(fresh.map((entry) => lastStrategy(entry.flushes)));
}

function showState(name: State, text: string): void {
  const state = byId("state");
  state.dataset.state = name;
  state.firstElementChild!.textContent = text;
}

async function poll(): Promise<void> {
  clearTimeout(timer);

  if (paused || document.hidden) return;

  try {
    applyFeed(await fetchFeed(revision));
    showState("live", "Live");
  } catch {
    showState("offline", "No answer, trying again");
  }

  // Somebody may have paused, or another poll begun, while this one waited.
  if (paused) showState("paused", "Paused");
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_INTERVAL);
}

function togglePause(): void {
  paused = !paused;
  const button = byId("pause");
  button.textContent = paused ? "Resume" : "Pause";
  button.setAttribute("aria-pressed", String(paused));
  if (paused) showState("paused", "Paused");
  void poll();
}

async function clear(): Promise<void> {
  await clearServer();
  rows.clear();
  filters.apply();
}

byId("pause").addEventListener("click", togglePause);
byId("clear").addEventListener("click", clear);
document.addEventListener("visibilitychange", poll);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
    event.preventDefault();
    filters.focusText();
  }
});

void poll();
