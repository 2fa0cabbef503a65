// What the script uses of the browser, whatever the page has done to it.

/**
 * A property of the document itself. Elements with a name hide it: on a page with
 * `<form name="head">`, `document.head` is the form.
 */
export const documentProperty = <Name extends string>(
  name: Name,
): Name extends keyof Document ? Document[Name] : any =>
  Reflect.get(Document.prototype, name, document);

/** A variable of the page's code. Elements with an id look like one, and are none. */
export const globalVariable = (name: "mixpanel" | "Mengpaneel"): any =>
  Object.hasOwn(window, name) && window[name];

export const { origin, fetch: originalFetch } = window;

/** The attributes of the script; those of the page where it is loaded as a module. */
export const { dataset, nonce } = (documentProperty("currentScript") ||
  documentProperty("documentElement")) as HTMLElement;
