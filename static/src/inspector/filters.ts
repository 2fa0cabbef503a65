// Which rows are shown: a button for each strategy, and a form. The page's address has
// what is chosen.

import { addressOfPerson, filtersInAddress, setFilters } from "./address";
import { byId, element } from "./elements";
import { isLost, strategyOf, type Entry } from "./entries";
import { shortPerson } from "./format";
import type { Rows } from "./rows";
import { searchableText, squeeze } from "./search";
import { OTHER, STRATEGIES, strategyClass } from "./strategies";

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

/** What may be asked of a row, by the names of the form's choices. */
const KINDS: Readonly<Record<string, (entry: Entry) => boolean>> = {
  event: ({ kind }) => kind === "event",
  update: ({ kind }) => kind === "update",
  waiting: (entry) => entry.kind === "not-arrived" && !isLost(entry),
  acknowledged: ({ state }) => state === "acknowledged",
  sent: ({ state }) => state === "sent",
  lost: isLost,
  refused: ({ kind, problem }) =>
    (kind === "event" || kind === "update") && Boolean(problem),
  "not-recorded": ({ kind, leftOut }) => kind === "not-recorded" && !leftOut,
  "left-out": ({ leftOut }) => Boolean(leftOut),
  changed: ({ remarks }) => remarks.length > 0,
  duplicate: ({ duplicateOf }) => Boolean(duplicateOf),
};

/** The filters, by their names in the page's address. */
const NAMES = ["strategy", "kind", "person", "text"] as const;

export class Filters {
  readonly #rows: Rows;
  readonly #form = byId<HTMLFormElement>("filters");
  readonly #fields = this.#form.elements as FilterFields;
  /** By the strategy's name; "" is all of them. */
  readonly #buttons = new Map<string, StrategyButton>();
  #strategy = "";

  constructor(rows: Rows) {
    this.#rows = rows;
    const strategies = {
      "": "everything",
      ...STRATEGIES,
      [OTHER]: "not recorded by this app",
    };

    for (const [name, hint] of Object.entries(strategies)) this.#addButton(name, hint);

    this.#form.addEventListener("input", () => this.#change());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    byId("unfilter").addEventListener("click", () => this.#reset());
    addEventListener("popstate", () => this.#read());
    this.#read();
  }

  /** Show the rows that match, and hide the others. */
  apply(): void {
    let shown = 0;

    for (const { node, entry } of this.#rows) {
      node.hidden = entry.key !== this.#rows.pinned && !this.#matches(entry);
      if (!node.hidden) shown += 1;
    }

    this.#drawCounts();
    byId("empty").hidden = this.#rows.size > 0;
    byId("unmatched").hidden = this.#rows.size === 0 || shown > 0;
  }

  /** Offer the people in the rows, and who is chosen. */
  offerPeople(): void {
    const select = this.#fields.person;
    const chosen = select.value;
    const people = [...new Set([chosen, ...[...this.#rows].map(({ entry }) => entry.person)])]
      .filter(Boolean)
      .sort();
    const offered = [...select.options].slice(1).map((option) => option.value);

    if (people.join("\n") === offered.join("\n")) return;

    // Everybody stays.
    select.length = 1;

    for (const person of people) select.add(new Option(shortPerson(person), person));

    select.value = chosen;
  }

  /** Show everything of a person, and nothing else. */
  showPerson(person: string): void {
    history.pushState(null, "", addressOfPerson(person));
    this.#read();
    scrollTo({ top: 0 });
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

  /** Take what is chosen from the page's address. */
  #read(): void {
    const query = filtersInAddress();
    const { text, kind, person } = this.#fields;
    const wanted = query.get("person") ?? "";

    if (wanted && ![...person.options].some((option) => option.value === wanted))
      person.add(new Option(shortPerson(wanted), wanted));

    text.value = query.get("text") ?? "";
    kind.value = query.get("kind") ?? "";
    // Of another version of the page.
    if (kind.selectedIndex < 0) kind.value = "";
    person.value = wanted;
    this.#strategy = query.get("strategy") ?? "";
    this.#rows.pinned = "";
    this.apply();
  }

  #change(): void {
    const { text, kind, person } = this.#fields;
    const chosen = {
      strategy: this.#strategy,
      kind: kind.value,
      person: person.value,
      text: text.value.trim(),
    };
    const query = new URLSearchParams();

    for (const name of NAMES) if (chosen[name]) query.set(name, chosen[name]);

    setFilters(query);
    this.#rows.pinned = "";
    this.apply();
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
      this.#change();
    });
    this.#buttons.set(name, { button, count, level });
    byId("channels").append(button);
  }

  #drawCounts(): void {
    const counts = new Map<string, number>();

    for (const { entry } of this.#rows) {
      const name = strategyOf(entry);
      counts.set(name, (counts.get(name) || 0) + 1);
    }

    counts.set("", this.#rows.size);

    for (const [name, { button, count, level }] of this.#buttons) {
      const number = counts.get(name) || 0;
      count.textContent = String(number);
      level.style.setProperty("--level", String(number / (this.#rows.size || 1)));
      button.setAttribute("aria-pressed", String(this.#strategy === name));
    }
  }

  #matches(entry: Entry): boolean {
    const { text, kind, person } = this.#fields;
    const wanted = squeeze(text.value);

    return (
      (!this.#strategy || strategyOf(entry) === this.#strategy) &&
      // An address may have the device of somebody who has signed in since.
      (!person.value || entry.person === person.value || entry.sentAs === person.value) &&
      (!kind.value || KINDS[kind.value](entry)) &&
      (!wanted || searchableText(entry).includes(wanted))
    );
  }

  #reset(): void {
    this.#form.reset();
    this.#strategy = "";
    this.#change();
  }
}
