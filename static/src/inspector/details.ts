// What an open row shows.

import { addressOfPerson } from "./address";
import { element } from "./elements";
import { arrivalKey, type Entry, type Kind, type Section, type Tone } from "./entries";
import type { Flush } from "./feed";
import { clock, duration, keptText } from "./format";
import { isObject, type Json } from "./json";
import { STRATEGIES, strategyClass } from "./strategies";

/** How long a button says that it has copied, in milliseconds. */
const COPIED_FOR = 1500;

/** What the problem of a row means. */
const PROBLEMS: Readonly<Record<Kind, { tone: Tone; title: string }>> = {
  event: { tone: "error", title: "Mixpanel would refuse this" },
  update: { tone: "error", title: "Mixpanel would refuse this" },
  "not-arrived": { tone: "error", title: "Not delivered" },
  "not-recorded": { tone: "warning", title: "Not recorded" },
};

/** Where a row leads to. */
export interface Links {
  /** Show everything of a person. */
  showPerson(person: string): void;
  /** Tell whether the page has a row. */
  has(key: string): boolean;
  showRow(key: string): void;
}

/** Make the inside of an open row. */
export function drawDetails(entry: Entry, links: Links): HTMLElement {
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
      ...drawNotices(entry, links),
      ...drawSources(entry),
      drawFlushes(entry),
      drawFacts(entry, links),
    ),
  );
}

function drawNotices(entry: Entry, links: Links): HTMLElement[] {
  const notices = [];

  if (entry.problem) {
    const { tone, title } = PROBLEMS[entry.kind];
    notices.push(drawNotice(tone, title, [entry.problem]));
  }

  if (entry.remarks.length) {
    notices.push(drawNotice("warning", "Mixpanel would change this", entry.remarks));
  }

  if (entry.undeclared) {
    notices.push(drawNotice("warning", "The app has not declared this", [entry.undeclared]));
  }

  if (entry.leftOut) {
    notices.push(drawNotice("warning", "Left out when it was recorded", [entry.leftOut]));
  }

  if (entry.duplicateOf) notices.push(drawDuplicate(arrivalKey(entry.duplicateOf), links));

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

function drawDuplicate(first: string, links: Links): HTMLElement {
  const notice = drawNotice("neutral", "Mixpanel would count this once", [
    "An event of the same name, person, time and $insert_id arrived before.",
  ]);

  if (links.has(first))
    notice.append(drawLink("Go to the first", `#${first}`, () => links.showRow(first)));

  return notice;
}

/** Make a link that changes the page, or is opened in another tab, or copied. */
function drawLink(text: string, address: string, click: () => void): HTMLElement {
  const link = element("a", { href: address }, text);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    click();
  });
  return link;
}

/** Make a button that copies a text; nothing where the page has no clipboard: that is
 * where it is neither local nor on https. */
function drawCopyButton(label: string, text: () => string): HTMLElement | "" {
  if (!navigator.clipboard) return "";

  const button = element("button", { type: "button", class: "small" }, label);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), COPIED_FOR);
  });
  return button;
}

/** Show the line of the app that recorded it. */
function drawSources({ sources }: Entry): HTMLElement[] {
  if (!sources.length) return [];

  const lines = sources.map(([place, name], index) =>
    element(
      "li",
      {},
      index ? "called from " : "",
      element("code", {}, place),
      name && ` in ${name}`,
    ),
  );

  return [
    element(
      "section",
      { class: "sources" },
      element("h3", {}, "Where it was called"),
      element("ol", {}, ...lines),
      drawCopyButton("Copy file and line", () => sources[0][0]),
    ),
  ];
}

function drawFlushes({ at, during, endpoint, flushes }: Entry): HTMLElement {
  if (during) return drawCalled(during, at);

  const section = element("section", {}, element("h3", {}, "How it got here"));

  if (!flushes.length) {
    section.append(
      element(
        "p",
        { class: "quiet" },
        endpoint
          ? "This app didn't record it: it comes from the page's own script, the browser" +
              " library itself or another program."
          : "It was dropped before any strategy was asked.",
      ),
    );
  }

  for (const flush of flushes) section.append(...drawFlush(flush));

  return section;
}

function drawCalled(during: string, at: number): HTMLElement {
  return element(
    "section",
    {},
    element("h3", {}, "When it was called"),
    drawMoment(during, at),
  );
}

function drawMoment(during: string, at: number): HTMLElement {
  return element(
    "p",
    { class: "during" },
    during || "outside a request",
    " ",
    element("time", {}, clock(at)),
  );
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
    drawMoment(during, at),
    element("ol", { class: "chain" }, ...steps),
  ];
}

function drawFacts(entry: Entry, links: Links): HTMLElement {
  const { person } = entry;
  const facts = Object.entries({
    Person: person,
    Endpoint: entry.endpoint && `/${entry.endpoint}`,
    Recorded: entry.lag > 0.05 ? `${duration(entry.lag)} before it arrived` : "",
    "Sent by": entry.agent,
  }).filter(([, value]) => value);
  const everything = () =>
    drawLink("Everything of this person", addressOfPerson(person), () =>
      links.showPerson(person),
    );

  return element(
    "section",
    {},
    facts.length ? element("h3", {}, entry.endpoint ? "Arrival" : "Call") : "",
    element(
      "dl",
      { class: "facts" },
      ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
    ),
    element(
      "p",
      { class: "links" },
      person ? everything() : "",
      drawLink("Address of this row", `#${entry.key}`, () => links.showRow(entry.key)),
      drawCopyButton("Copy JSON", () => JSON.stringify(entry.record, null, 2)),
    ),
  );
}

function drawSection({ title, values, isLibrarys }: Section): HTMLElement {
  const rows = Object.entries(values).map(([name, value]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", {}, ...drawValue(value)),
    ),
  );

  return element(
    "table",
    { class: isLibrarys ? "library" : "own" },
    element("caption", {}, title),
    ...rows,
  );
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
