/*! Flask-Mengpaneel, MIT licence; the reasons are in docs/front-ends.md */
((w, d) => {
"use strict";

if (w.Mengpaneel) return;

const { fetch, navigator } = w;
const { dataset, nonce } = (d && d.currentScript) || { dataset: {} };
const capable = "X-Mengpaneel-Flush-Capable";
const routes = { people: "engage", groups: "groups", events: "track" };
const outbox = { people: [], groups: [], events: [] };
const busy = {};
const queue = [];
let debug = "debug" in dataset;
let page, main, twin, current, blocked, leaving;

const quietly = (action) => {
  try {
    return action();
  } catch (error) {
    if (debug) console.debug("Mengpaneel", error);
  }
};

const load = (key) => quietly(() => JSON.parse(localStorage[key])) || [];
const save = (key, list) => quietly(() => (localStorage[key] = JSON.stringify(list.slice(-200))));

// Nothing private, nothing that every object has.
const get = (target, name) => (name in {} || name[0] == "_" ? 0 : target[name]);

const make = (target, call) => {
  for (let i = 0; call[i]; i += 2) {
    const names = [...call[i]];
    const last = names.pop();
    const owner = names.reduce(get, target);
    target = get(owner, last).apply(owner, call[i + 1]);
  }
};

const take = ({ text, signature, calls: only }) => {
  const data = JSON.parse(text);
  const batch = { text, signature, calls: [] };

  for (const [once, calls] of data.token ? data.calls || [] : [[0, data]]) {
    const made = load("mengpaneel_made");
    const again = once && made.includes(once);

    if (once && !again) save("mengpaneel_made", [...made, once]);

    for (const call of calls)
      batch.calls.push({ call, batch, done: only ? !only.includes(batch.calls.length) : again });
  }

  queue.push(batch);
  flush();
};

// The library keeps messages for seconds, and loses them with the page. A twin of it
// that doesn't batch writes them, and they are sent at once.
const live = (mixpanel) => {
  main = mixpanel;
  blocked = false;
  quietly(() => {
    const { people, config } = main;
    twin = Object.create(main, {
      people: { value: Object.create(people) },
      config: { value: Object.assign(Object.create(config), { api_transport: "sendBeacon" }) },
    });

    // Builds rename what is private.
    for (const key in main) if (main[key] === true) twin[key] = false;
    for (const key in people) if (people[key] == main) twin.people[key] = twin;

    for (const kind in routes)
      main.add_hook("before_send_" + kind, (message) => {
        if (!current) return message;
        current.done = outbox[kind].push([message, current]);
        return null;
      });
  });
  flush();
};

const perform = (call) => {
  const name = call[0][0];
  const people = /^people$|_group$/.test(name);

  if (debug) console.debug("Mengpaneel", JSON.stringify(call), debug);

  // Without an identify on this page, updates wait.
  if (people && main.get_property("$user_id")) twin.identify(main.get_distinct_id());

  make(people || /^(alias|identify|track(_[pw].*)?)$/.test(name) ? twin : main, call);
};

const flush = () => {
  if (main) {
    for (const batch of queue.splice(0))
      for (current of batch.calls) if (!current.done) quietly(() => perform(current.call));
    current = 0;
    send();
  } else if (blocked) back(queue.splice(0));
};

const send = () => {
  for (const kind in routes)
    while (outbox[kind][0] && (leaving || !busy[kind])) post(kind, outbox[kind].splice(0, 20));
};

const post = (kind, messages) => {
  const { api_extra_query_params, api_routes, ip, xhr_headers: headers } = main.config;
  const query = new URLSearchParams({ verbose: 1, ip: +ip, ...api_extra_query_params });
  const url = `${main.get_api_host(kind)}/${api_routes[routes[kind]]}?${query}`;
  const body = new URLSearchParams({ data: JSON.stringify(messages.map(([message]) => message)) });
  const request = (keepalive) => fetch(url, { method: "POST", body, keepalive, headers, credentials: "include" });
  const failed = () => back(messages.map(([, call]) => ((call.done = 0), call.batch)));

  // This says at once whether it may outlive the page.
  if (leaving) return navigator.sendBeacon(url, body) || failed();

  busy[kind] = true;
  request(true)
    .catch(() => leaving || request().catch(() => (blocked = navigator.onLine)))
    .then((response) => response.json())
    .catch(() => 0)
    .then((answer) => {
      busy[kind] = false;
      if (leaving) return;
      if (answer !== 1 && answer.status !== 1) failed();
      send();
    });
};

// What can't be made goes back to the app, else to the next page.
const back = (batches) => {
  for (const { text, signature, calls: all } of new Set(batches)) {
    const calls = all.reduce((list, call, i) => (call.done ? list : (call.done = [...list, i])), []);
    const left = { text, signature, calls, blocked: !!blocked };
    const body = JSON.stringify(left);
    const url = signature && page.fallback;
    const keep = () => save("mengpaneel_left", [...load("mengpaneel_left"), left]);

    if (!calls[0] && calls[0] !== 0) continue;
    if (url && !leaving)
      fetch(url, { method: "POST", body, keepalive: true }).then(
        (response) => response.status > 428 && keep(),
        () => leaving || keep()
      );
    else (url && navigator.sendBeacon(url, body)) || keep();
  }
};

const adopt = () => {
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

const boot = ({ token, library, ...data }) => {
  const config = { ...data.config };
  const root = (w.mixpanel = instance());
  const script = d.createElement("script");
  root.__SV = 1.2;
  root._i = [[token, config, "mixpanel"]];
  root.init = (token, options, name) => {
    if (!name) return void Object.assign(config, options);
    root[name] = instance();
    root._i.push([token, options, name]);
  };
  script.nonce = nonce;
  script.onload = script.onerror = check;

  try {
    script.src = library;
  } catch (error) {
    const policy = { createScriptURL: () => library };
    script.src = w.trustedTypes.createPolicy("mengpaneel", policy).createScriptURL();
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
        if (page.library && !w.mixpanel) boot(page);
        adopt();
        const left = load("mengpaneel_left");
        save("mengpaneel_left", []);
        left.map(take);
      }

      take({ text, signature: element.dataset.signature });
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
      !(dataset.exclude || "").split(" ").some((prefix) => prefix && pathname.startsWith(prefix))
    );
  });

const receive = (url, get) =>
  quietly(() => {
    const text = ours(url) && get("X-Mengpaneel-Calls");

    if (text) take({ text, signature: get("X-Mengpaneel-Signature") });
  });

w.fetch = function (input, init) {
  const request = input instanceof Request;
  const headers =
    announces(request ? input.url : input) &&
    quietly(() => (request ? input.headers : new Headers((init || {}).headers)));

  // What Turbo fetches in advance is shown later, or never.
  if (!headers || headers.has("X-Sec-Purpose")) return fetch.apply(this, arguments);

  headers.set(capable, "true");
  // With a second argument, a Request loses more than its headers.
  const answer = fetch.call(
    this,
    input,
    request ? init : new Proxy(init || {}, { get: (init, name) => (name == "headers" ? headers : init[name]) })
  );
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
  w.addEventListener("DOMContentLoaded", scan);
  w.addEventListener("turbo:load", scan);
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
