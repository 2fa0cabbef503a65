// The inspector's page: what arrives, as it arrives.

import { keyInAddress } from "./address";
import { byId } from "./elements";
import {
  arrivalInsertId,
  arrivalKey,
  callInsertId,
  callKey,
  entryOfArrival,
  entryOfCall,
  entryOfUnrecorded,
  unrecordedKey,
  type Entry,
} from "./entries";
import { clearServer, fetchFeed, type Feed, type UnrecordedCall } from "./feed";
import { Filters } from "./filters";
import { Rows } from "./rows";
import { lastStrategy } from "./strategies";

/** Milliseconds from one question to the next, where the server answers each at once. */
const MIN_INTERVAL = 1000;
/** Milliseconds from news to the next question: they come in crowds. */
const CROWD_INTERVAL = 150;

type State = "live" | "paused" | "offline";

const rows = new Rows((person) => filters.showPerson(person));
const filters: Filters = new Filters(rows);
/** The calls that weren't recorded, or not as a whole, by the ids of their events. */
const unrecorded = new Map<string, UnrecordedCall>();

/** The revision up to which the page knows everything; 0: it knows nothing yet. */
let revision = 0;
/** The revision at which everything was last cleared. */
let cleared = 0;
let paused = false;
/** The row that the address was of when the page was opened, until it is shown. */
let wanted = keyInAddress();
let timer: ReturnType<typeof setTimeout> | undefined;
/** Ends the question that the server hasn't answered yet. */
let question = new AbortController();

function applyFeed(feed: Feed): void {
  const isFirst = revision === 0;
  // The server's file may have been made anew, and count from the beginning.
  const isCleared = feed.cleared !== cleared || feed.after < revision;
  revision = feed.after;
  cleared = feed.cleared;

  if (isCleared) rows.clear();

  const fresh = entriesOf(feed)
    .filter((entry) => rows.put(entry))
    .filter((entry) => entry.endpoint);

  for (const call of feed.calls)
    if (call.arrival !== null) rows.replace(callKey(call.id), arrivalKey(call.arrival));

  for (const { entry } of [...rows]) {
    const partly = unrecorded.get(entry.insertId);

    // It is marked there, or it has arrived after all.
    if (partly && (entry.kind === "event" || (entry.leftOut && entry.flushes.length)))
      rows.remove(unrecordedKey(partly.id));
  }

  rows.trim();

  if (feed.calls.length || feed.arrivals.length || feed.unrecorded.length || isCleared) {
    filters.offerPeople();
    filters.apply();
  }

  if (!isFirst && fresh.length) announce(fresh);

  if (isFirst) showWanted();
}

/** Show the row that the page's address is of. */
function showWanted(): void {
  wanted = keyInAddress();
  byId("gone").hidden = !wanted || rows.show(wanted);
}

/** Return what the feed has to show, oldest first. */
function entriesOf(feed: Feed): Entry[] {
  for (const call of feed.unrecorded)
    if (call.insertId) unrecorded.set(call.insertId, call);

  return [
    ...feed.unrecorded.map(entryOfUnrecorded),
    ...feed.arrivals.map((arrival) =>
      entryOfArrival(arrival, unrecorded.get(arrivalInsertId(arrival))),
    ),
    ...feed.calls
      .filter((call) => call.arrival === null)
      .map((call) => entryOfCall(call, unrecorded.get(callInsertId(call)))),
  ].sort((one, other) => one.at - other.at);
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

/** Ask for news, and again when there is an answer. */
async function poll(): Promise<void> {
  clearTimeout(timer);
  question.abort();

  if (paused || document.hidden) return;

  question = new AbortController();
  const { signal } = question;
  const began = performance.now();
  const before = revision;

  try {
    const feed = await fetchFeed(before, before ? "" : wanted, signal);
    if (signal.aborted) return;

    applyFeed(feed);
    showState("live", "Live");
  } catch {
    // Somebody has paused, or asks anew.
    if (signal.aborted) return;

    showState("offline", "No answer, trying again");
  }

  const rest = began + MIN_INTERVAL - performance.now();
  timer = setTimeout(poll, revision === before ? rest : CROWD_INTERVAL);
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
addEventListener("hashchange", () => {
  // The server may have what is too old to be here.
  if (keyInAddress() && !rows.get(keyInAddress())) location.reload();
  else showWanted();
});
document.addEventListener("keydown", (event) => {
  const isTyping = (event.target as Element).matches("input, select");

  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filters.focusText();
  }
});

void poll();
