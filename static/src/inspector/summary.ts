// The line that a row shows, open or not.

import { element } from "./elements";
import { noPerson, strategyOf, type Entry, type Mark } from "./entries";
import { clock, duration, hue, shortPerson } from "./format";
import { strategyClass } from "./strategies";

/** The earlier flushes that are shown beside the last one, at most. */
const MAX_EARLIER = 4;

export function drawSummary(entry: Entry): HTMLElement {
  return element(
    "summary",
    {},
    element(
      "time",
      { datetime: new Date(entry.at * 1000).toISOString() },
      clock(entry.at),
    ),
    element(
      "span",
      { class: "what" },
      element("strong", { class: "name" }, entry.name),
      element("span", { class: "brief" }, entry.summary),
    ),
    element("span", { class: "marks" }, ...entry.marks.map(drawMark), ...drawLag(entry.lag)),
    drawPerson(entry.person, noPerson(entry)),
    drawStrategies(entry),
    element("span", { class: "device" }, entry.device),
  );
}

function drawMark({ tone, text }: Mark): HTMLElement {
  return element("span", { class: `mark ${tone}` }, text);
}

function drawLag(lag: number): HTMLElement[] {
  if (lag <= 1) return [];

  const title = "from its time to its arrival";
  return [element("span", { class: "lag", title }, `+${duration(lag)}`)];
}

function drawPerson(person: string, otherwise: string): HTMLElement {
  const dot = element("span", { class: person ? "dot" : "dot nobody" });
  // The page's policy forbids style attributes, but not this.
  dot.style.setProperty("--hue", String(hue(person)));

  return element(
    "span",
    { class: "person", title: person },
    dot,
    element("span", { class: "who" }, shortPerson(person) || otherwise),
  );
}

/** Show the last strategy by name, and those of earlier flushes as bars before it. */
function drawStrategies(entry: Entry): HTMLElement {
  const { flushes } = entry;
  const last = strategyOf(entry);
  if (!last) return element("span", { class: "strategy" });

  const earlier = flushes
    .slice(0, -1)
    .slice(-MAX_EARLIER)
    .map(({ strategy }) => element("span", { class: `earlier ${strategyClass(strategy)}` }));

  return element(
    "span",
    {
      class: "strategy",
      title: flushes.map((flush) => flush.strategy).join(", then "),
    },
    ...earlier,
    element("span", { class: `chip ${strategyClass(last)}` }, last),
  );
}
