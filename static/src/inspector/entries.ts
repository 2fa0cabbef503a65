// What a row says: of a record that arrived, or of a recorded call that has not.

import type { Arrival, Flush, FlushedCall, Source, State, UnrecordedCall } from "./feed";
import { brief, lag } from "./format";
import { isObject, type Json, type JsonObject } from "./json";
import { lastStrategy } from "./strategies";

export type Kind = "event" | "update" | "not-arrived" | "not-recorded";

/** How a mark or a notice is coloured. */
export type Tone = "error" | "warning" | "good" | "pending" | "neutral";

/** A word or two in a row about what is special with it. */
export interface Mark {
  tone: Tone;
  text: string;
}

/** A table of values in an open row. */
export interface Section {
  title: string;
  values: JsonObject;
  /** Whether the library has added them. */
  isLibrarys?: boolean;
}

export interface Entry {
  /** "a7" is the arrival 7, "c7" the recorded call 7, "u7" the unrecorded one 7. */
  key: string;
  /** Seconds since the epoch. */
  at: number;
  kind: Kind;
  name: string;
  /** What the app gave, and then what went along. */
  properties: JsonObject;
  summary: string;
  person: string;
  /** The id that it was sent with: the person, before devices and users were merged. */
  sentAs: string;
  flushes: Flush[];
  /** Where the last hand-over is. */
  state: State;
  /** The lines of the app that recorded it, the one that made the call first. */
  sources: Source[];
  /** During which request it was called, if no flush says so. */
  during: string;
  /** The id of the event, if it has one. */
  insertId: string;
  device: string;
  /** Seconds from the time of the event to its arrival. */
  lag: number;
  marks: Mark[];
  problem: string;
  remarks: string[];
  /** What was left out when it was recorded, and why. */
  leftOut: string;
  /** Why it isn't in the app's tracking plan; empty if it is, or if there is none. */
  undeclared: string;
  duplicateOf: number | null;
  sections: Section[];
  record: Json;
  endpoint: string;
  agent: string;
}

/** Mixpanel's operations on profiles, and the library's methods for them. */
const OPERATIONS: Readonly<Record<string, string>> = {
  $set: "set",
  $set_once: "set_once",
  $add: "increment",
  $append: "append",
  $union: "union",
  $remove: "remove",
  $unset: "unset",
  $delete: "delete",
};

/** What the libraries add to each event, beside names that begin with "$". */
const ADDED_TO_EVENTS = new Set(
  "token time distinct_id mp_lib mp_sent_by_lib_version mp_country_code ip".split(" "),
);

/** What the library adds of the campaign that has brought the visitor. */
const CAMPAIGN =
  /^(utm_\w+|([dg]|fb|ms|tt|tw)clid|[gw]braid|sccid|ko_click_id|li_fat_id|mp_keyword)$/;

/** What the browser library adds to each profile update. */
const ADDED_TO_PROFILES = new Set(["$browser", "$browser_version", "$os"]);

/** Return the key of an arrival's entry. */
export function arrivalKey(id: number): string {
  return `a${id}`;
}

/** Return the key of a recorded call's entry. */
export function callKey(id: number): string {
  return `c${id}`;
}

/** Return the key of an unrecorded call's entry. */
export function unrecordedKey(id: number): string {
  return `u${id}`;
}

/** @param partly What was left out of the event when it was recorded, if it was. */
export function entryOfArrival(arrival: Arrival, partly?: UnrecordedCall): Entry {
  const record = isObject(arrival.record) ? arrival.record : {};
  const isEvent = arrival.endpoint === "track" || arrival.endpoint === "import";

  return {
    key: arrivalKey(arrival.id),
    at: arrival.at,
    kind: isEvent ? "event" : "update",
    person: arrival.person,
    sentAs: String(sentAs(record) ?? ""),
    flushes: arrival.flushes,
    state: stateOf(arrival.flushes),
    sources: sourcesOf(arrival.flushes),
    during: "",
    insertId: arrivalInsertId(arrival),
    leftOut: leftOutOf(partly),
    marks: [...marksOf(arrival), ...leftOutMarks(partly)],
    problem: arrival.problem,
    remarks: arrival.remarks,
    undeclared: arrival.undeclared,
    duplicateOf: arrival.duplicateOf,
    record: arrival.record,
    endpoint: arrival.endpoint,
    agent: arrival.agent,
    ...(isEvent ? eventParts(record, arrival) : updateParts(record)),
    ...(isWholeRequest(record) && { name: `Request to /${arrival.endpoint}` }),
  };
}

/** Return the id of the event that arrived; empty if it is none, or has none. */
export function arrivalInsertId({ record }: Arrival): string {
  const properties = isObject(record) && isObject(record.properties) ? record.properties : {};
  return String(properties.$insert_id ?? "");
}

/** Return the id of the event that a call tracks; empty if it doesn't. */
export function callInsertId({ wire }: FlushedCall): string {
  return String(wire.at(-1)!.find(isObject)?.$insert_id ?? "");
}

function sentAs(record: JsonObject): Json | undefined {
  const properties = isObject(record.properties) ? record.properties : {};
  return record.$distinct_id ?? properties.distinct_id;
}

type OwnParts = Pick<
  Entry,
  "name" | "properties" | "summary" | "device" | "lag" | "sections"
>;

function eventParts(record: JsonObject, arrival: Arrival): OwnParts {
  const properties = isObject(record.properties) ? record.properties : {};
  const sorted = sortProperties(properties, arrival.own);
  const shown = { ...sorted.own, ...sorted.registered, ...sorted.campaign };

  return {
    name: String(record.event || "(no name)"),
    properties: shown,
    summary: summary(shown),
    device: device(properties),
    lag: arrival.problem ? 0 : lag(arrival.at, properties.time),
    sections: sectionsOfEvent(record, sorted),
  };
}

function updateParts(record: JsonObject): OwnParts {
  return {
    name: nameOfUpdate(record),
    properties: {},
    summary: summaryOfUpdate(record),
    device: device(isObject(record.$set) ? record.$set : {}),
    lag: 0,
    sections: sectionsOfUpdate(record),
  };
}

/** Tell whether a record stands for a request that was refused as a whole. */
function isWholeRequest(record: JsonObject): boolean {
  return "request" in record && Object.keys(record).length === 1;
}

/** @param partly What was left out of the event when it was recorded, if it was. */
export function entryOfCall(call: FlushedCall, partly?: UnrecordedCall): Entry {
  const args = call.wire.at(-1)!;
  const properties = args.find(isObject) || {};
  const tracks = typeof args[0] === "string" && call.name.startsWith("track");
  const state = stateOf(call.flushes);
  // What the library adds, it adds to events.
  const own = tracks ? sortProperties(properties, null).own : properties;

  return {
    key: callKey(call.id),
    at: call.at,
    kind: "not-arrived",
    name: tracks ? String(args[0]) : `${call.name}()`,
    properties: own,
    summary: summary(own),
    person: String(properties.distinct_id || call.person || ""),
    sentAs: "",
    flushes: call.flushes,
    state,
    sources: sourcesOf(call.flushes),
    during: "",
    insertId: callInsertId(call),
    leftOut: leftOutOf(partly),
    device: "",
    lag: 0,
    marks: [whyNotArrived(call, state), ...leftOutMarks(partly)],
    problem: call.failure,
    remarks: [],
    undeclared: "",
    duplicateOf: null,
    sections: [
      { title: "Recorded call", values: { [call.name]: args.length === 1 ? args[0] : args } },
    ],
    record: call.wire,
    endpoint: "",
    agent: "",
  };
}

export function entryOfUnrecorded(call: UnrecordedCall): Entry {
  const { id, name, event, reason, origin, missing, insertId } = call;

  return {
    key: unrecordedKey(id),
    at: call.at,
    kind: "not-recorded",
    name: event || `${name}()`,
    properties: {},
    summary: missing.length ? missing.join(", ") : reason,
    person: "",
    sentAs: "",
    flushes: [],
    state: "",
    sources: origin ? [[origin, ""]] : [],
    during: call.during || "outside a request",
    insertId,
    device: "",
    lag: 0,
    marks: missing.length
      ? leftOutMarks(call)
      : [{ tone: "warning", text: insertId || !origin ? "not sent" : "not recorded" }],
    problem: missing.length ? "" : reason,
    remarks: [],
    undeclared: "",
    leftOut: leftOutOf(call),
    duplicateOf: null,
    sections: event ? [{ title: "Call", values: { [name]: event } }] : [],
    record: { ...call },
    endpoint: "",
    agent: "",
  };
}

/** Return whether it hasn't arrived, and never will. */
export function isLost({ kind, problem, state }: Entry): boolean {
  return kind === "not-arrived" && (Boolean(problem) || state === "dropped");
}

const NO_PERSON: Readonly<Record<Kind, string>> = {
  event: "nobody",
  update: "nobody",
  "not-arrived": "not known yet",
  "not-recorded": "not known",
};

/** Return what is shown where there is no person. */
export function noPerson(entry: Entry): string {
  return isLost(entry) ? "not known" : NO_PERSON[entry.kind];
}

/** Return the strategy that took it last; empty for what no strategy has got, as it was
 * not recorded, or was dropped before. */
export function strategyOf({ endpoint, flushes }: Entry): string {
  return endpoint || flushes.length ? lastStrategy(flushes) : "";
}

function sourcesOf(flushes: Flush[]): Source[] {
  return flushes.flatMap((flush) => flush.sources);
}

function leftOutOf(partly: UnrecordedCall | undefined): string {
  return partly?.missing.length ? partly.reason : "";
}

function leftOutMarks(partly: UnrecordedCall | undefined): Mark[] {
  if (!partly?.missing.length) return [];

  const [first, ...others] = partly.missing;
  const more = others.length ? ` and ${others.length} more` : "";
  return [{ tone: "warning", text: `property left out: ${first}${more}` }];
}

/** Return where the last hand-over of a call is. */
function stateOf(flushes: Flush[]): State {
  return flushes.at(-1)?.state ?? "";
}

/** Say in a word or two what a call is waiting for, or why it won't arrive. */
function whyNotArrived({ failure, flushes }: FlushedCall, state: State): Mark {
  if (failure.startsWith("dropped:")) return { tone: "neutral", text: "dropped" };
  if (failure) return { tone: "error", text: "not delivered" };
  if (state === "dropped") return { tone: "error", text: "not sent" };
  if (lastStrategy(flushes) === "Delayed") return { tone: "neutral", text: "waits for a page" };
  if (state === "waiting") return { tone: "neutral", text: "waits for the browser" };
  return { tone: "neutral", text: "not arrived yet" };
}

/** What a mark says of a hand-over that has arrived. */
const STATE_MARKS: Partial<Record<State, Mark>> = {
  waiting: { tone: "pending", text: "to be acknowledged" },
  acknowledged: { tone: "good", text: "acknowledged" },
  sent: { tone: "neutral", text: "sent by the server" },
};

function marksOf(arrival: Arrival): Mark[] {
  const { problem, remarks, duplicateOf, flushes, undeclared } = arrival;
  const marks: Mark[] = [];
  const state = STATE_MARKS[stateOf(flushes)];

  if (problem) marks.push({ tone: "error", text: "refused" });
  if (state) marks.push(state);
  if (duplicateOf) marks.push({ tone: "neutral", text: "duplicate" });
  if (undeclared) marks.push({ tone: "warning", text: "not in the plan" });

  if (remarks.length) {
    const isCut = remarks.some((remark) => remark.includes("is cut"));
    marks.push({ tone: "warning", text: isCut ? "cut" : "note" });
  }

  return marks;
}

interface SortedProperties {
  /** The app's own; with the registered ones where they can't be told apart. */
  own: JsonObject;
  /** Super properties. */
  registered: JsonObject;
  campaign: JsonObject;
  /** What the library adds to each event. */
  added: JsonObject;
}

/**
 * Sort the properties of an event by where they come from.
 *
 * @param own The names that the app gave; null if that is not known.
 */
function sortProperties(properties: JsonObject, own: string[] | null): SortedProperties {
  const ownNames = own && new Set(own);
  const placeOf = (name: string): keyof SortedProperties => {
    if (ownNames?.has(name)) return "own";
    if (name.startsWith("$") || ADDED_TO_EVENTS.has(name)) return "added";
    if (CAMPAIGN.test(name)) return "campaign";
    return ownNames ? "registered" : "own";
  };
  const placed = (place: string) => pick(properties, (name) => placeOf(name) === place);

  return {
    own: placed("own"),
    registered: placed("registered"),
    campaign: placed("campaign"),
    added: placed("added"),
  };
}

function pick(values: JsonObject, wanted: (name: string) => boolean): JsonObject {
  return Object.fromEntries(Object.entries(values).filter(([name]) => wanted(name)));
}

function summary(properties: JsonObject): string {
  return Object.entries(properties)
    .slice(0, 4)
    .map(([name, value]) => `${name}: ${brief(value)}`)
    .join("  ·  ");
}

function operationsOf(record: JsonObject): string[] {
  return Object.keys(OPERATIONS).filter((name) => name in record);
}

function nameOfUpdate(record: JsonObject): string {
  const object = "$group_key" in record ? "group" : "people";
  const methods = operationsOf(record).map((name) => OPERATIONS[name]);
  return `${object}.${methods.join(" + ") || "(nothing)"}`;
}

function summaryOfUpdate(record: JsonObject): string {
  return operationsOf(record)
    .map((operation) => {
      const value = record[operation];
      if (Array.isArray(value)) return value.map(brief).join(", ");
      if (!isObject(value)) return "";
      return summary(pick(value, (name) => !ADDED_TO_PROFILES.has(name)));
    })
    .filter(Boolean)
    .join("  ·  ");
}

function device(properties: JsonObject): string {
  return [properties.$browser, properties.$device || properties.$os]
    .filter((part) => typeof part === "string" && part)
    .join(" · ");
}

function sectionsOfEvent(record: JsonObject, properties: SortedProperties): Section[] {
  return [
    { title: "Properties", values: properties.own },
    { title: "Super properties", values: properties.registered },
    { title: "Campaign", values: properties.campaign },
    { title: "Added by the library", values: properties.added, isLibrarys: true },
    {
      title: "Beside the properties",
      values: pick(record, (name) => name !== "event" && name !== "properties"),
    },
  ];
}

function sectionsOfUpdate(record: JsonObject): Section[] {
  const sections = operationsOf(record).map((operation) => {
    const value = record[operation];
    return { title: operation, values: isObject(value) ? value : { [operation]: value } };
  });
  const others = pick(record, (name) => !(name in OPERATIONS));

  return [...sections, { title: "About", values: others }];
}
