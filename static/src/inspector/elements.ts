/** Return the element of the page with an id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/**
 * Make an element.
 *
 * Children become nodes or text, never markup: what arrives is untrusted. Empty text
 * is left out.
 */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);

  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);

  made.append(...children.filter((child) => child !== ""));
  return made;
}
