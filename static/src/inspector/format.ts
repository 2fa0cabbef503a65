import type { Json } from "./json";

/** Bytes to which Mixpanel cuts a text: MAX_TEXT in limits.py. */
const MAX_TEXT_BYTES = 255;

const MAX_BRIEF = 40;
const MAX_PERSON = 28;

/** Milliseconds since the epoch are beyond it, seconds are not until the year 5138. */
const MAX_SECONDS = 1e11;

/** Return a value as text that fits into a line. */
export function brief(value: Json): string {
  return shorten(fullText(value), MAX_BRIEF);
}

/** Return a value as text. */
export function fullText(value: Json): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Return a person's id as text that fits into a column. */
export function shortPerson(person: string): string {
  if (person.startsWith("$device:")) return `device ${person.slice(8, 16)}`;
  return shorten(person, MAX_PERSON);
}

function shorten(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

/** Return the time of day, from seconds since the epoch. */
export function clock(seconds: number): string {
  const date = new Date(seconds * 1000);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, "0"))
    .join(":");
}

/** Return a duration in words. */
export function duration(seconds: number): string {
  const length = Math.abs(seconds);
  if (length < 60) return `${seconds.toFixed(1)} s`;
  if (length < 5400) return `${Math.round(seconds / 60)} min`;
  if (length < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** Return the seconds from an event's time, which may be in milliseconds, to a time. */
export function lag(at: number, time: Json | undefined): number {
  if (typeof time !== "number") return 0;
  return at - (Math.abs(time) > MAX_SECONDS ? time / 1000 : time);
}

/** Return the hue for a text: always the same one, in degrees. */
export function hue(text: string): number {
  let hash = 7;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)!) % 9973;
  // Steps that can be told apart, rather than any of 360.
  return (hash % 24) * 15;
}

/** Return the beginning of a text that Mixpanel keeps. */
export function keptText(text: string): string {
  const bytes = new Uint8Array(MAX_TEXT_BYTES);
  return text.slice(0, new TextEncoder().encodeInto(text, bytes).read);
}
