/*! Flask-Mengpaneel, MIT licence. How and why: docs/front-ends.md */
((w, d) => {
"use strict";

if (w.Mengpaneel) return;

const { fetch, navigator } = w;
const me = (d && d.currentScript) || { dataset: {} };
const capable = "X-Mengpaneel-Flush-Capable";
const routes = { people: "engage", groups: "groups", events: "track" };
const outbox = { people: [], groups: [], events: [] };
const busy = {};
let debug = "debug" in me.dataset;
let queue = [];
let page, main, twin, entry, blocked, leaving;

const quietly = (action) => {
  try {
    return action();
  } catch (error) {
    if (debug) console.debug("Mengpaneel", error);
  }
};

const load = (key) => quietly(() => JSON.parse(localStorage[key])) || [];
const save = (key, list) => quietly(() => (localStorage[key] = JSON.stringify(list.slice(-200))));

// Nothing private, and nothing that every object has.
const get = (object, name) => (name in {} || name[0] == "_" ? null : object[name]);

const make = (target, call) => {
  for (let i = 0; call[i]; i += 2) {
    const names = call[i].slice();
    const last = names.pop();
    const owner = names.reduce(get, target);
    target = get(owner, last).apply(owner, call[i + 1]);
  }
};

const take = (text, signature, only) => {
  const data = JSON.parse(text);
  const from = { text, signature, entries: [] };
  let index = 0;

  for (const [once, calls] of data.token ? data.calls || [] : [[0, data]]) {
    const made = load("mengpaneel_made");
    const again = once && made.includes(once);

    if (once && !again) save("mengpaneel_made", [...made, once]);

    for (const call of calls) {
      if (only ? only.includes(index) : !again) from.entries.push({ call, index, from });
      index++;
    }
  }

  queue.push(...from.entries);
  flush();
};

// The library holds messages back for seconds and loses them with the page. A twin
// of its instance, which doesn't batch, writes them; they leave at once.
const live = (instance) => {
  main = instance;
  blocked = false;
  quietly(() => {
    const { people, config } = main;
    twin = Object.create(main, {
      people: { value: Object.create(people) },
      config: { value: Object.assign(Object.create(config), { api_transport: "sendBeacon" }) },
    });

    // Their names differ from build to build.
    for (const key in main) if (main[key] === true) twin[key] = false;
    for (const key in people) if (people[key] == main) twin.people[key] = twin;

    for (const kind in routes)
      main.add_hook("before_send_" + kind, (message) => {
        if (!entry) return message;
        entry.done = outbox[kind].push([message, entry]);
        return null;
      });
  });
  flush();
};

const perform = ({ call }) => {
  const name = call[0][0];
  const people = /^people$|_group$/.test(name);

  if (debug) console.debug("Mengpaneel", JSON.stringify(call), debug);

  // Even a known visitor's updates wait for an identify on this page.
  if (people && main.get_property("$user_id")) twin.identify(main.get_distinct_id());

  make(people || /^(alias|identify|track(_[pw].*)?)$/.test(name) ? twin : main, call);
};

const flush = () => {
  if (main) {
    for (entry of queue.splice(0)) quietly(() => perform(entry));
    entry = 0;
    send();
  } else if (blocked) back(queue.splice(0));
};

const send = () => {
  for (const kind in routes)
    while (outbox[kind][0] && (leaving || !busy[kind])) post(kind, outbox[kind].splice(0, 20));
};

const post = (kind, batch) => {
  const { config } = main;
  const query = new URLSearchParams({ verbose: 1, ip: +config.ip, ...config.api_extra_query_params });
  const url = `${main.get_api_host(kind)}/${config.api_routes[routes[kind]]}?${query}`;
  const body = new URLSearchParams({ data: JSON.stringify(batch.map((item) => item[0])) });
  const failed = () => back(batch.map((item) => item[1]));
  const request = (keepalive) =>
    fetch(url, { method: "POST", body, keepalive, credentials: "include", headers: config.xhr_headers });

  // This says at once whether there is room for it to outlive the page.
  if (leaving) return navigator.sendBeacon(url, body) || failed();

  busy[kind] = true;
  request(true)
    .catch(() => request())
    .then(
      (response) => response.json().catch(() => 0),
      () => (blocked = navigator.onLine)
    )
    .then((answer) => {
      if (leaving) return;
      busy[kind] = false;
      if (answer !== 1 && answer.status !== 1) failed();
      send();
    });
};

// What can't be made goes back to the app, else to the next page.
const back = (entries) => {
  for (const item of entries) item.done = 0;

  for (const { text, signature, entries: all } of new Set(entries.map((item) => item.from))) {
    const calls = all.filter((item) => !item.done).map((item) => ((item.done = 1), item.index));
    const body = JSON.stringify({ text, signature, calls, blocked: !!blocked });
    const url = signature && page.fallback;
    const keep = () => save("mengpaneel_left", [...load("mengpaneel_left"), body]);

    if (url && !leaving) fetch(url, { method: "POST", body }).then((response) => response.ok || keep(), keep);
    else (url && navigator.sendBeacon(url, body)) || keep();
  }
};

const adopt = () => {
  // Called in its turn, and at once when the library is there.
  if (w.mixpanel && !main)
    w.mixpanel.push(function () {
      if (!main) live(this);
    });
};

const check = () => {
  adopt();
  blocked = !main;
  flush();
};

// Stands in for the library: what is called on it is called later, in order.
const stand = (owner, root) =>
  new Proxy(Object.assign([], { config: 0, persistence: 0, then: 0, __loaded: 0 }), {
    get: (target, name) =>
      name in target || typeof name == "symbol"
        ? target[name]
        : (...args) => {
            const method = (mixpanel) => owner(mixpanel)[name](...args);
            (root || target).push(function () {
              quietly(() => method(this));
            });
            return name == "get_group" && stand(method, target);
          },
  });

const instance = () => {
  const root = stand((mixpanel) => mixpanel);
  root.people = stand((mixpanel) => mixpanel.people, root);
  return root;
};

const boot = () => {
  const config = { ...page.config };
  const root = (w.mixpanel = instance());
  const script = d.createElement("script");
  root.__SV = 1.2;
  root._i = [[page.token, config, "mixpanel"]];
  root.init = (token, options, name) => {
    if (!name) return void Object.assign(config, options);
    root[name] = instance();
    root._i.push([token, options, name]);
  };
  script.nonce = me.nonce;
  script.onload = script.onerror = check;

  try {
    script.src = page.library;
  } catch (error) {
    script.src = w.trustedTypes
      .createPolicy("mengpaneel", { createScriptURL: (url) => url })
      .createScriptURL(page.library);
  }

  d.head.append(script);
};

const scan = () => {
  for (const element of d.querySelectorAll("script#mengpaneel")) {
    const text = element.textContent;
    const first = !page;
    element.remove(); // No snapshot of the page has it again.
    quietly(() => {
      page = JSON.parse(text);
      debug = page.debug || debug;

      if (first) {
        if (page.library && !w.mixpanel) boot();

        adopt();
        const left = load("mengpaneel_left");
        save("mengpaneel_left", []);
        left.map((body) => JSON.parse(body)).map((body) => take(body.text, body.signature, body.calls));
      }

      take(text, element.dataset.signature);
    });
  }
};

w.Mengpaneel = {
  use: live,
  make: (mixpanel, calls) => calls.map((call) => quietly(() => make(mixpanel, call))),
};

if (!d) return;

const ours = (url) => url.startsWith(w.origin + "/");

const announces = (url) =>
  main &&
  !blocked &&
  quietly(() => {
    const { href, pathname } = new URL(url, d.baseURI);
    return (
      ours(href) &&
      !href.startsWith(main.config.api_host) &&
      !(me.dataset.exclude || "").split(" ").some((prefix) => prefix && pathname.startsWith(prefix))
    );
  });

const receive = (url, header) =>
  quietly(() => {
    const text = ours(url) && header("X-Mengpaneel-Calls");

    if (text) take(text, header("X-Mengpaneel-Signature"));
  });

w.fetch = function (input, init) {
  const request = input instanceof Request;

  if (!announces(request ? input.url : input)) return fetch.apply(this, arguments);

  const given = (init || {}).headers;
  const plain = request && !given;
  const headers = plain ? input.headers : new Headers(given);
  const args = [...arguments];

  // What Turbo fetches in advance is shown later, or never.
  if (!headers.has("X-Sec-Purpose")) headers.set(capable, "true");

  // A second argument would reset more of a Request than its headers.
  if (!plain)
    args[1] = new Proxy(init || {}, {
      get: (target, name) => (name == "headers" ? headers : target[name]),
    });

  const answer = fetch.apply(this, args);
  headers.delete(capable);
  return answer.then((response) => {
    receive(response.url, (name) => response.headers.get(name));
    return response;
  });
};

const { prototype } = XMLHttpRequest;
const { open, send: dispatch } = prototype;
const urls = new WeakMap();

prototype.open = function (method, url) {
  urls.set(this, url);
  return open.apply(this, arguments);
};

prototype.send = function () {
  if (announces(urls.get(this)))
    quietly(() => {
      const listen = () => {
        if (this.readyState < 2) return;
        this.removeEventListener("readystatechange", listen);
        receive(this.responseURL, (name) => this.getResponseHeader(name));
      };
      this.setRequestHeader(capable, "true");
      this.addEventListener("readystatechange", listen);
    });

  return dispatch.apply(this, arguments);
};

const begin = () => {
  scan();
  d.addEventListener("DOMContentLoaded", scan);
  d.addEventListener("turbo:load", scan);
  w.addEventListener("load", check);
};

w.addEventListener("pageshow", () => (leaving = false));
w.addEventListener("pagehide", () => {
  leaving = true;
  send();
  back(queue.splice(0));
});

if (d.prerendering) d.addEventListener("prerenderingchange", begin);
else begin();
})(globalThis, globalThis.document);
