// The classic script in a window of its own, with stand-ins for the browser's parts.
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const file = path.join(__dirname, "..", "..", "static", "mengpaneel.js");
const source = fs.readFileSync(file, "utf8");

/**
 * An instance of the library that notes what is called on it, and gives a message of each
 * event to its hooks. It refuses those that are in `refused`, as for a visitor who has
 * opted out.
 */
function library(calls, api_host = "https://api.example", refused = []) {
  const hooks = [];
  const method = (name, result) =>
    (...args) => {
      calls.push({ method: name, arguments: args });
      return result;
    };
  return {
    people: { set: method("people.set"), union: method("people.union") },
    config: {
      api_host,
      api_routes: { track: "track/" },
      ip: true,
      persistence: "cookie",
      token: "TOKEN",
    },
    get_api_host: () => api_host,
    alias: method("alias"),
    identify: method("identify"),
    register: method("register"),
    reset: method("reset"),
    unregister: () => undefined,
    track(event, properties) {
      method("track")(...[event, properties].filter((argument) => argument !== undefined));
      if (!refused.includes(event)) for (const hook of hooks) hook({ event, properties });
    },
    set_group(key, ids) {
      this.register({ [key]: ids });
      this.people.set(key, ids);
    },
    get_group: method("get_group", { set: method("set") }),
    get_property: () => undefined,
    add_hook: (_, hook) => hooks.push(hook),
  };
}

/**
 * A window on a page that has the data; `answer` gives the headers of each response of
 * the app, `answers` what a request for a URL gets: an object, a status, or an error.
 */
function open({ page = "https://app.example/", base = page, exclude = [], data, store = {}, prerendering = false, answer = () => ({}), answers = () => 200 } = {}) {
  const requests = [];
  const listeners = {};
  const timers = [];
  const elements = {};

  if (data)
    elements.mengpaneel = {
      text: JSON.stringify({ token: "TOKEN", config: {}, library: null, ...data }),
      dataset: { signature: "signed" },
      remove: () => delete elements.mengpaneel,
    };

  class XMLHttpRequest {
    open() {}
  }

  class Document {
    get baseURI() {
      return base;
    }

    get currentScript() {
      return { dataset: { exclude: exclude.join(" ") } };
    }

    get prerendering() {
      return prerendering;
    }

    get scripts() {
      return elements;
    }
  }

  const note = (how, url, init) => {
    const body = init?.body && String(init.body);
    requests.push({
      how,
      url: String(url),
      headers: new Headers(init?.headers),
      keepalive: how == "beacon" || init?.keepalive,
      body,
    });
  };
  const window = {
    Document, URL, Headers, Request, URLSearchParams, XMLHttpRequest, console,
    navigator: {
      onLine: true,
      sendBeacon(url, body) {
        note("beacon", url, { body });
        return true;
      },
    },
    localStorage: store,
    isSecureContext: true,
    origin: new URL(page).origin,
    location: { href: page },
    addEventListener: (name, listener) => (listeners[name] = listener),
    setTimeout: (action) => timers.push(action),
    document: new Document(),
    async fetch(input, init) {
      note("fetch", input, init);
      const url = new URL(input, page).href;
      const found = await answers(url, requests.at(-1).body);
      if (found instanceof Error) throw found;
      const status = typeof found == "number" ? found : 200;
      const json = async () => JSON.parse(JSON.stringify(found));
      return { url, status, json, headers: new Headers(answer(input)) };
    },
  };
  window.window = window;
  vm.runInNewContext(source, window);

  /** Let time pass until nothing happens any more. */
  const settle = async () => {
    do {
      await new Promise(setImmediate);
      for (const action of timers.splice(0)) action();
      await new Promise(setImmediate);
    } while (timers.length);
  };
  return { window, requests, listeners, store, settle };
}

module.exports = { file, source, library, open };
