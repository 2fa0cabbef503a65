// The classic script in a window of its own, with stand-ins for the browser's parts.
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const file = path.join(__dirname, "..", "..", "static", "mengpaneel.js");
const source = fs.readFileSync(file, "utf8");

/** An instance of the library that notes what is called on it. */
function library(calls, api_host = "https://api.example") {
  const method = (name, result) =>
    (...args) => {
      calls.push({ method: name, arguments: args });
      return result;
    };
  return {
    people: { set: method("people.set") },
    config: { api_host, api_routes: {}, token: "TOKEN" },
    alias: method("alias"),
    identify: method("identify"),
    reset: method("reset"),
    track: method("track"),
    get_group: method("get_group", { set: method("set") }),
    get_property: () => undefined,
    add_hook: () => undefined,
  };
}

/** A window on a page; `answer` gives the headers of each response. */
function open({ page = "https://app.example/", base = page, exclude = [], answer = () => ({}) } = {}) {
  const requests = [];
  const listeners = {};
  const store = {};

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

    get scripts() {
      return {};
    }
  }

  const window = {
    Document, URL, Headers, Request, URLSearchParams, XMLHttpRequest, console,
    navigator: { onLine: true, sendBeacon: () => true },
    localStorage: store,
    origin: new URL(page).origin,
    addEventListener: (name, listener) => (listeners[name] = listener),
    document: new Document(),
    async fetch(input, init) {
      requests.push({ url: String(input), headers: new Headers(init && init.headers) });
      return { url: new URL(input, page).href, headers: new Headers(answer(input)) };
    },
  };
  window.window = window;
  vm.runInNewContext(source, window);
  return { window, requests, listeners, store };
}

module.exports = { file, source, library, open };
