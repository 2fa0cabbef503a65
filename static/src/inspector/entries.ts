// What a row says: of a record that arrived, or of a recorded call that has not.

import type { Arrival, Flush, FlushedCall } from "./feed";
import { brief, lag } from "./format";
import { isObject, type Json, type JsonObject } from "./json";
import { lastStrategy } from "./strategies";

export type Kind = "event" | "update" | "not-arrived";

/** How a mark or a notice is coloured. */
export type Tone = "error" | "warning" | "neutral";

/** A word or two in a row about what is special with it. */
export interface Mark {
  tone: Tone;
  text: string;
}

/** A table of values in an open row. */
export interface Section {
  title: string;
  values: JsonObject;
}

export interface Entry {
  /** "a7" is the arrival 7, "c7" the recorded call 7. */
  key: string;
  /** Seconds since the epoch. */
  at: number;
  kind: Kind;
  name: string;
  summary: string;
  person: string;
  flushes: Flush[];
  device: string;
  /** Seconds from the time of the event to its arrival. */
  lag: number;
  marks: Mark[];
  problem: string;
  remarks: string[];
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

export function entryOfArrival(arrival: Arrival): Entry {
  const record = isObject(arrival.record) ? arrival.record : {};
  const isEvent = arrival.endpoint === "track" || arrival.endpoint === "import";

  return {
    key: arrivalKey(arrival.id),
    at: arrival.at,
    kind: isEvent ? "event" : "update",
    person: arrival.person,
    flushes: arrival.flushes,
    marks: marksOf(arrival),
    problem: arrival.problem,
    remarks: arrival.remarks,
    duplicateOf: arrival.duplicateOf,
    record: arrival.record,
    endpoint: arrival.endpoint,
    agent: arrival.agent,
    ...(isEvent ? eventParts(record, arrival) : updateParts(record)),
    ...(isWholeRequest(record) && { name: `Request to /${arrival.endpoint}` }),
  };
}

type OwnParts = Pick<Entry, "name" | "summary" | "device" | "lag" | "sections">;

function eventParts(record: JsonObject, arrival: Arrival): OwnParts {
  const properties = isObject(record.properties) ? record.properties : {};

  return {
    name: String(record.event || "(no name)"),
    summary: summary(ownProperties(properties)),
    device: device(properties),
    lag: arrival.problem ? 0 : lag(arrival.at, properties.time),
    sections: sectionsOfEvent(record, properties),
  };
}

function updateParts(record: JsonObject): OwnParts {
  return {
    name: nameOfUpdate(record),
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

export function entryOfCall(call: FlushedCall): Entry {
  const args = call.wire.at(-1)!;
  const properties = args.find(isObject) || {};
  const tracks = typeof args[0] === "string" && call.name.startsWith("track");

  return {
    key: callKey(call.id),
    at: call.at,
    kind: "not-arrived",
    name: tracks ? String(args[0]) : `${call.name}()`,
    summary: summary(ownProperties(properties)),
    person: String(properties.distinct_id || call.person || ""),
    flushes: call.flushes,
    device: "",
    lag: 0,
    marks: [
      call.failure
        ? { tone: "error", text: "not delivered" }
        : { tone: "neutral", text: whyNotArrived(call.flushes) },
    ],
    problem: call.failure,
    remarks: [],
    duplicateOf: null,
    sections: [
      { title: "Recorded call", values: { [call.name]: args.length === 1 ? args[0] : args } },
    ],
    record: call.wire,
    endpoint: "",
    agent: "",
  };
}

/** Say in a word or two what a recorded call is waiting for, or why it won't arrive. */
function whyNotArrived(flushes: Flush[]): string {
  if (flushes.at(-1)?.became.startsWith("not sent")) return "not sent";
  return lastStrategy(flushes) === "Delayed" ? "waits for a page" : "not arrived yet";
}

function marksOf({ problem, remarks, duplicateOf, flushes }: Arrival): Mark[] {
  const marks: Mark[] = [];
  const became = flushes.at(-1)?.became ?? "";

  if (became.startsWith("sent by the server"))
    marks.push({ tone: "neutral", text: "sent by the server" });

  if (problem) marks.push({ tone: "error", text: "refused" });
  if (duplicateOf) marks.push({ tone: "neutral", text: "duplicate" });

  if (remarks.length) {
    const isCut = remarks.some((remark) => remark.includes("is cut"));
    marks.push({ tone: "warning", text: isCut ? "cut" : "note" });
  }

  return marks;
}

/** Return the properties that are the app's own, and not the library's. */
function ownProperties(properties: JsonObject): JsonObject {
  return pick(properties, (name) => !name.startsWith("$") && !ADDED_TO_EVENTS.has(name));
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

function sectionsOfEvent(record: JsonObject, properties: JsonObject): Section[] {
  const own = ownProperties(properties);

  return [
    { title: "Properties", values: own },
    { title: "Added by the library", values: pick(properties, (name) => !(name in own)) },
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
