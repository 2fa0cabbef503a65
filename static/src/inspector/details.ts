// What an open row shows.

import { element } from "./elements";
import type { Entry, Section, Tone } from "./entries";
import type { Flush } from "./feed";
import { clock, duration, keptText } from "./format";
import { isObject, type Json } from "./json";
import { STRATEGIES, strategyClass } from "./strategies";

/**
 * Make the inside of an open row.
 *
 * @param showFirst Show the arrival of which the entry is a duplicate; undefined if the
 *   page doesn't have it.
 */
export function drawDetails(entry: Entry, showFirst: (() => void) | undefined): HTMLElement {
  const values = entry.sections
    .filter((section) => Object.keys(section.values).length)
    .map(drawSection);

  return element(
    "div",
    { class: "inside" },
    element("div", { class: "values" }, ...values),
    element(
      "div",
      { class: "side" },
      ...drawNotices(entry, showFirst),
      drawFlushes(entry.flushes),
      drawArrival(entry),
    ),
  );
}

function drawNotices(entry: Entry, showFirst: (() => void) | undefined): HTMLElement[] {
  const notices = [];

  if (entry.problem) {
    const notArrived = entry.kind === "not-arrived";
    const title = notArrived ? "Not delivered" : "Mixpanel would refuse this";
    notices.push(drawNotice("error", title, [entry.problem]));
  }

  if (entry.remarks.length) {
    notices.push(drawNotice("warning", "Mixpanel would change this", entry.remarks));
  }

  if (entry.duplicateOf) notices.push(drawDuplicate(showFirst));

  return notices;
}

function drawNotice(tone: Tone, title: string, texts: string[]): HTMLElement {
  return element(
    "section",
    { class: `notice ${tone}` },
    element("h3", {}, title),
    ...texts.map((text) => element("p", {}, text)),
  );
}

function drawDuplicate(showFirst: (() => void) | undefined): HTMLElement {
  const notice = drawNotice("neutral", "Mixpanel would count this once", [
    "An event of the same name, person, time and $insert_id arrived before.",
  ]);

  if (showFirst) notice.append(drawButton("Go to the first", showFirst));

  return notice;
}

function drawButton(text: string, click: () => void): HTMLElement {
  const button = element("button", { type: "button", class: "small" }, text);
  button.addEventListener("click", click);
  return button;
}

function drawFlushes(flushes: Flush[]): HTMLElement {
  const section = element("section", {}, element("h3", {}, "How it got here"));

  if (!flushes.length) {
    section.append(
      element(
        "p",
        { class: "quiet" },
        "This app didn't record it: it comes from the page's own script, the browser" +
          " library itself or another program.",
      ),
    );
  }

  for (const flush of flushes) section.append(...drawFlush(flush));

  return section;
}

function drawFlush({ strategy, declined, at, during, became }: Flush): HTMLElement[] {
  const step = (kind: string, name: string, text: string) =>
    element("li", { class: kind }, element("b", {}, name), " ", element("span", {}, text));
  const steps = Object.entries(declined).map(([name, reason]) =>
    step("declined", name, reason),
  );
  steps.push(
    step(`took ${strategyClass(strategy)}`, strategy, STRATEGIES[strategy] || "took it"),
  );
  if (became) steps.push(element("li", { class: "became" }, became));

  return [
    element(
      "p",
      { class: "during" },
      during || "outside a request",
      " ",
      element("time", {}, clock(at)),
    ),
    element("ol", { class: "chain" }, ...steps),
  ];
}

function drawArrival(entry: Entry): HTMLElement {
  const facts = Object.entries({
    Person: entry.person,
    Endpoint: entry.endpoint && `/${entry.endpoint}`,
    Recorded: entry.lag > 0.05 ? `${duration(entry.lag)} before it arrived` : "",
    "Sent by": entry.agent,
  }).filter(([, value]) => value);

  return element(
    "section",
    {},
    element("h3", {}, "Arrival"),
    element(
      "dl",
      { class: "facts" },
      ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    ),
    // Pages that are neither local nor on https have no clipboard.
    navigator.clipboard ? drawCopyButton(entry.record) : "",
  );
}

function drawCopyButton(record: Json): HTMLElement {
  const button = drawButton("Copy JSON", async () => {
    await navigator.clipboard.writeText(JSON.stringify(record, null, 2));
    button.textContent = "Copied";
  });
  return button;
}

function drawSection({ title, values }: Section): HTMLElement {
  const rows = Object.entries(values).map(([name, value]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, ...drawValue(value)),
    ),
  );

  return element("table", {}, element("caption", {}, title), ...rows);
}

function drawValue(value: Json): HTMLElement[] {
  if (typeof value === "string") return drawText(value);

  const text = JSON.stringify(value, null, 2);
  return isObject(value) || Array.isArray(value)
    ? [element("pre", {}, text)]
    : [element("span", { class: "number" }, text)];
}

function drawText(text: string): HTMLElement[] {
  const kept = keptText(text);
  const cut = text.slice(kept.length);
  const parts: HTMLElement[] = [element("span", { class: "text" }, kept || "“”")];

  if (cut) parts.push(element("del", { title: "Mixpanel cuts this off" }, cut));

  return parts;
}
