// The list of rows, newest first.

import { drawDetails } from "./details";
import { byId, element } from "./elements";
import { arrivalKey, type Entry } from "./entries";
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

    const row = { entry, node: element("li"), open: false };
    this.#rows.set(entry.key, row);
    this.#draw(row);
    this.#insert(row);
    return true;
  }

  remove(key: string): void {
    this.#rows.get(key)?.node.remove();
    this.#rows.delete(key);
  }

  clear(): void {
    for (const key of [...this.#rows.keys()]) this.remove(key);
  }

  /** Remove the rows that came first until there are no more than there may be. */
  trim(): void {
    for (const key of this.#rows.keys()) {
      if (this.#rows.size <= MAX_ROWS) return;
      this.remove(key);
    }
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
    const details = element("details", { class: `row ${entry.kind}` }, drawSummary(entry));
    details.classList.toggle("refused", Boolean(entry.problem));
    details.classList.toggle("duplicate", Boolean(entry.duplicateOf));
    details.open = row.open;

    // Most rows are never opened, and what is inside is most of their nodes.
    let drawn = false;
    const drawInside = () => {
      if (!drawn) details.append(drawDetails(entry, this.#showFirst(entry)));
      drawn = true;
    };
    details.addEventListener("toggle", () => {
      row.open = details.open;
      if (details.open) drawInside();
    });

    if (row.open) drawInside();

    row.node.replaceChildren(details);
  }

  /** Return what opens the row of which an entry is a duplicate, if it is here. */
  #showFirst({ duplicateOf }: Entry): (() => void) | undefined {
    const first = duplicateOf && this.#rows.get(arrivalKey(duplicateOf));
    if (!first) return undefined;

    return () => {
      first.node.hidden = false;
      first.node.querySelector("details")!.open = true;
      first.node.querySelector("summary")!.focus();
    };
  }
}

function timeOf(node: Element): number {
  return Number((node as HTMLElement).dataset.at);
}
