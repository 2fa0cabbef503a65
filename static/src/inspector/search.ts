// What a row is found by: all that it shows, open or not.

import { noPerson, type Entry } from "./entries";
import { clock, duration, fullText, shortPerson } from "./format";
import { STRATEGIES } from "./strategies";

const known = new WeakMap<Entry, string>();

/** Return a text as it is compared: a line break is as good as a space. */
export function squeeze(text: string): string {
  return text.normalize("NFC").toLowerCase().replace(/\s+/g, " ").trim();
}

/** Return all the text of a row. */
export function searchableText(entry: Entry): string {
  let text = known.get(entry);

  if (text === undefined) {
    text = squeeze([...partsOf(entry)].join("\n"));
    known.set(entry, text);
  }

  return text;
}

function* partsOf(entry: Entry): Generator<string> {
  yield entry.name;
  yield entry.summary;
  yield Object.entries(entry.properties)
    .map(([name, value]) => `${name}: ${fullText(value)}`)
    .join(" · ");
  yield clock(entry.at);
  yield entry.person ? `${entry.person} ${shortPerson(entry.person)}` : noPerson(entry);
  yield entry.device;
  yield entry.agent;
  yield `/${entry.endpoint} +${duration(entry.lag)}`;
  yield entry.problem;
  yield entry.leftOut;
  yield entry.during;
  yield* entry.remarks;
  yield* entry.marks.map((mark) => mark.text);

  for (const { title, values } of entry.sections) {
    yield title;
    // As a table has them, and as they are copied from one.
    for (const [name, value] of Object.entries(values)) {
      yield `${name}: ${fullText(value)}`;
      yield `${name} ${fullText(value)}`;
    }
  }

  for (const [place, name] of entry.sources) yield `${place} in ${name}`;

  for (const { strategy, declined, during, became } of entry.flushes) {
    yield `${strategy} ${STRATEGIES[strategy] ?? ""}`;
    yield during;
    yield became;
    for (const [name, reason] of Object.entries(declined)) yield `${name} ${reason}`;
  }

  // As it is copied, and as a log has it.
  yield JSON.stringify(entry.record, null, 1);
  yield JSON.stringify(entry.record);
}
