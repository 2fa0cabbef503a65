// Which rows are shown: a button for each strategy, and a form.

import { byId, element } from "./elements";
import type { Entry } from "./entries";
import { shortPerson } from "./format";
import type { Rows } from "./rows";
import { lastStrategy, OTHER, STRATEGIES, strategyClass } from "./strategies";

/** How long a strategy's button is lit when something has arrived, in milliseconds. */
const LIT_FOR = 600;

interface StrategyButton {
  button: HTMLButtonElement;
  count: HTMLElement;
  level: HTMLElement;
}

interface FilterFields extends HTMLFormControlsCollection {
  text: HTMLInputElement;
  kind: HTMLSelectElement;
  person: HTMLSelectElement;
}

export class Filters {
  readonly #rows: Rows;
  readonly #form = byId<HTMLFormElement>("filters");
  readonly #fields = this.#form.elements as FilterFields;
  /** By the strategy's name; "" is all of them. */
  readonly #buttons = new Map<string, StrategyButton>();
  /** What a row's text is searched in. */
  readonly #searchable = new WeakMap<Entry, string>();
  #strategy = "";

  constructor(rows: Rows) {
    this.#rows = rows;
    const strategies = {
      "": "everything",
      ...STRATEGIES,
      [OTHER]: "not recorded by this app",
    };

    for (const [name, hint] of Object.entries(strategies)) this.#addButton(name, hint);

    this.#form.addEventListener("input", () => this.apply());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    byId("unfilter").addEventListener("click", () => this.#reset());
  }

  /** Show the rows that match, and hide the others. */
  apply(): void {
    let shown = 0;

    for (const { node, entry } of this.#rows) {
      node.hidden = !this.#matches(entry);
      if (!node.hidden) shown += 1;
    }

    this.#drawCounts();
    byId("empty").hidden = this.#rows.size > 0;
    byId("unmatched").hidden = this.#rows.size === 0 || shown > 0;
  }

  /** Offer the people in the rows, and no others. */
  offerPeople(): void {
    const select = this.#fields.person;
    const people = [...new Set([...this.#rows].map(({ entry }) => entry.person))]
      .filter(Boolean)
      .sort();
    const offered = [...select.options].slice(1).map((option) => option.value);

    if (people.join("\n") === offered.join("\n")) return;

    const chosen = select.value;
    // Everybody stays.
    select.length = 1;

    for (const person of people) select.add(new Option(shortPerson(person), person));

    select.value = people.includes(chosen) ? chosen : "";
  }

  /** Light the buttons of strategies for a moment. */
  light(strategies: Iterable<string>): void {
    for (const name of strategies) this.#buttons.get(name)?.button.classList.add("lit");

    setTimeout(() => {
      for (const { button } of this.#buttons.values()) button.classList.remove("lit");
    }, LIT_FOR);
  }

  focusText(): void {
    this.#fields.text.focus();
  }

  #addButton(name: string, hint: string): void {
    const count = element("span", { class: "count" }, "0");
    const level = element("span", { class: "level" });
    const button = element(
      "button",
      {
        type: "button",
        class: `channel ${strategyClass(name || "All")}`,
        "aria-pressed": String(!name),
        title: hint,
      },
      element("span", { class: "label" }, name || "All"),
      count,
      element("span", { class: "meter", "aria-hidden": "true" }, level),
    );
    button.addEventListener("click", () => {
      this.#strategy = this.#strategy === name ? "" : name;
      this.apply();
    });
    this.#buttons.set(name, { button, count, level });
    byId("channels").append(button);
  }

  #drawCounts(): void {
    const counts = new Map([["", this.#rows.size]]);

    for (const { entry } of this.#rows) {
      const name = lastStrategy(entry.flushes);
      counts.set(name, (counts.get(name) || 0) + 1);
    }

    for (const [name, { button, count, level }] of this.#buttons) {
      const number = counts.get(name) || 0;
      count.textContent = String(number);
      level.style.setProperty("--level", String(number / (this.#rows.size || 1)));
      button.setAttribute("aria-pressed", String(this.#strategy === name));
    }
  }

  #matches(entry: Entry): boolean {
    const { text, kind, person } = this.#fields;
    const wanted = text.value.trim().toLowerCase();

    return (
      (!this.#strategy || lastStrategy(entry.flushes) === this.#strategy) &&
      (!person.value || entry.person === person.value) &&
      (!kind.value || isKind(entry, kind.value)) &&
      (!wanted || this.#searchableText(entry).includes(wanted))
    );
  }

  #searchableText(entry: Entry): string {
    let text = this.#searchable.get(entry);

    if (text === undefined) {
      const { name, person, record } = entry;
      text = `${name} ${person} ${JSON.stringify(record)}`.toLowerCase();
      this.#searchable.set(entry, text);
    }

    return text;
  }

  #reset(): void {
    this.#form.reset();
    this.#strategy = "";
    this.apply();
  }
}

function isKind(entry: Entry, kind: string): boolean {
  if (kind === "refused") return Boolean(entry.problem);
  if (kind === "changed") return entry.remarks.length > 0;
  if (kind === "duplicate") return Boolean(entry.duplicateOf);
  return entry.kind === kind;
}
