// The list of rows, newest first.

import { keyInAddress, setKey } from "./address";
import { drawDetails, type Links } from "./details";
import { byId, element } from "./elements";
import type { Entry } from "./entries";
import { drawSummary } from "./summary";

/** What the page keeps: more would make it slow. */
const MAX_ROWS = 2000;

export interface Row {
  entry: Entry;
  node: HTMLLIElement;
  open: boolean;
}

export class Rows {
  /** In the order in which they came. */
  readonly #rows = new Map<string, Row>();
  readonly #list = byId("list");
  /** The key of a row that is shown also if it doesn't match; empty if there is none. */
  pinned = "";
  readonly #links: Links;

  /** @param showPerson Show everything of a person. */
  constructor(showPerson: (person: string) => void) {
    this.#links = {
      showPerson,
      has: (key) => this.#rows.has(key),
      showRow: (key) => this.show(key),
    };
  }

  get size(): number {
    return this.#rows.size;
  }

  [Symbol.iterator](): Iterator<Row> {
    return this.#rows.values();
  }

  get(key: string): Row | undefined {
    return this.#rows.get(key);
  }

  /** Show an entry, in place of the one with its key; tell whether there was none. */
  put(entry: Entry): boolean {
    const known = this.#rows.get(entry.key);

    if (known) {
      known.entry = entry;
      this.#draw(known);
      return false;
    }

    const row = { entry, node: element("li", { id: entry.key }), open: false };
    this.#rows.set(entry.key, row);
    this.#draw(row);
    this.#insert(row);
    return true;
  }

  remove(key: string): void {
    this.#rows.get(key)?.node.remove();
    this.#rows.delete(key);
  }

  /** Let an arrival take the place of the call that it comes from. */
  replace(call: string, arrival: string): void {
    const row = this.#rows.get(call);
    this.remove(call);

    if (row?.open) this.#open(arrival);
    if (keyInAddress() === call) setKey(arrival);
  }

  clear(): void {
    for (const key of [...this.#rows.keys()]) this.remove(key);
  }

  /** Remove the rows that came first until there are no more than there may be, but not
   * the one that the page's address is of. */
  trim(): void {
    for (const key of this.#rows.keys()) {
      if (this.#rows.size <= MAX_ROWS) return;
      if (key !== keyInAddress()) this.remove(key);
    }
  }

  /** Open a row and go there, also if it doesn't match; tell whether it is here. */
  show(key: string): boolean {
    const node = this.#open(key);
    if (!node) return false;

    this.pinned = key;
    node.hidden = false;
    setKey(key);
    node.querySelector("summary")!.focus({ preventScroll: true });
    node.scrollIntoView({ block: "start" });
    return true;
  }

  #open(key: string): HTMLLIElement | undefined {
    const row = this.#rows.get(key);
    if (!row) return undefined;

    row.open = true;
    this.#draw(row);
    return row.node;
  }

  /** Put a row before all that are older; nearly always that is the top. */
  #insert(row: Row): void {
    let next = this.#list.firstElementChild;

    while (next && timeOf(next) > row.entry.at) next = next.nextElementSibling;

    row.node.dataset.at = String(row.entry.at);
    this.#list.insertBefore(row.node, next);
  }

  #draw(row: Row): void {
    const { entry } = row;
    const hadFocus = row.node.contains(document.activeElement);
    const details = element("details", { class: `row ${entry.kind}` }, drawSummary(entry));
    details.classList.toggle(
      "refused",
      Boolean(entry.problem) && entry.kind !== "not-recorded",
    );
    details.classList.toggle("duplicate", Boolean(entry.duplicateOf));
    details.open = row.open;

    // Most rows are never opened, and what is inside is most of their nodes.
    let drawn = false;
    const drawInside = () => {
      if (!drawn) details.append(drawDetails(entry, this.#links));
      drawn = true;
    };
    details.addEventListener("toggle", () => {
      // Also told of a row that is drawn open.
      if (row.open === details.open) return;

      row.open = details.open;

      if (row.open) {
        drawInside();
        setKey(entry.key);
      } else if (keyInAddress() === entry.key) {
        setKey("");
      }
    });

    if (row.open) drawInside();

    row.node.replaceChildren(details);
    if (hadFocus) details.querySelector("summary")!.focus({ preventScroll: true });
  }
}

function timeOf(node: Element): number {
  return Number((node as HTMLElement).dataset.at);
}
