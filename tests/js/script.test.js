const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const zlib = require("node:zlib");
const { library, open, source } = require("./script.js");
const acknowledge = require("../../docs/protocol/acknowledge.json");
const announce = require("../../docs/protocol/announce.json");
const protocol = require("../../docs/protocol/calls.json");

const plain = (value) => JSON.parse(JSON.stringify(value));

for (const { name, header, calls } of protocol.vectors)
  test(`calls: ${name}`, async () => {
    const { window } = open({ answer: () => ({ "X-Mengpaneel-Calls": header }) });
    const made = [];
    window.Mengpaneel.use(library(made));
    await window.fetch("/cart");
    assert.deepStrictEqual(plain(made), calls);
  });

for (const { name, page, request, exclude, headers, api_host, acks, ...vector } of announce.vectors)
  test(`announce: ${name}`, async () => {
    const { window, requests, listeners } = open({ page, exclude, data: acks && { acks } });

    if (vector.library != "loading" && vector.library != "blocked")
      window.Mengpaneel.use(library([], api_host));

    if (vector.library == "blocked") listeners.load();

    await window.fetch(request, { headers }).catch(() => 0);
    const value = requests[0].headers.get("X-Mengpaneel-Flush-Capable");
    const announcement = acks ? "true; ack; project=TOKEN" : "true; project=TOKEN";
    assert.strictEqual(value, vector.announce ? announcement : null);
  });

const ACKS = "https://app.example/_mengpaneel/acks";
const CALLS = "https://app.example/_mengpaneel/calls";
const DATA = { acks: "/_mengpaneel/acks", fallback: "/_mengpaneel/calls" };

/** What Mixpanel does with events, by the words of the vectors. */
const ANSWERS = {
  takes: { status: 1 },
  refuses: { status: 0, error: "no" },
  fails: 503,
  unreachable: new Error("Failed to fetch"),
  "somebody else": ["Log in"],
};

const eventsOf = (body) => JSON.parse(new URLSearchParams(body).get("data")).map(({ event }) => event);

const isMixpanel = ({ url }) => url.startsWith("https://api.example/track/");

/** The events that were sent. A request that fails is made again without `keepalive`. */
const sent = (requests) =>
  requests.filter((request) => isMixpanel(request) && request.keepalive).flatMap(({ body }) => eventsOf(body));

const acknowledged = (requests) =>
  requests.filter(({ url }) => url == ACKS).flatMap(({ body }) => body.split(" "));

const handedBack = (requests) =>
  requests.filter(({ url }) => url == CALLS).map(({ body }) => JSON.parse(body));

for (const { name, responses, ...vector } of acknowledge.vectors)
  test(`acknowledge: ${name}`, async () => {
    const answer = (url) => {
      const { calls, handover } = responses[url.split("/")[2]] || {};
      return {
        ...calls && { "X-Mengpaneel-Calls": calls, "X-Mengpaneel-Signature": "signed" },
        ...handover && { "X-Mengpaneel-Hand-Over": handover },
      };
    };
    const answers = (url, body) => {
      if (!isMixpanel({ url })) return 204;
      const isTaken = vector.refuses && !eventsOf(body).some((event) => vector.refuses.includes(event));
      return ANSWERS[isTaken ? "takes" : vector.mixpanel];
    };
    const { window, requests, settle } = open({ data: DATA, answer, answers });
    window.Mengpaneel.use(library([], undefined, vector.library == "refuses" ? ["A"] : []));
    for (const number in responses) await window.fetch(`/view/${number}`);
    await settle();
    assert.deepStrictEqual(sent(requests).join(), vector.events.join());
    assert.deepStrictEqual(acknowledged(requests), vector.acknowledged);
    const back = handedBack(requests).map(({ handover, calls }) => ({ handover, calls }));
    assert.deepStrictEqual(back, vector.handed_back);
  });

for (const request of ["/cart", "cart", "//app.example/cart", "https://app.example/cart"])
  test(`<base> leads to another site: ${request}`, async () => {
    const { window, requests } = open({ base: "https://cdn.example/" });
    window.Mengpaneel.use(library([]));
    await window.fetch(request);
    const value = requests[0].headers.get("X-Mengpaneel-Flush-Capable");
    assert.strictEqual(value, request.includes("app.example") ? "true; project=TOKEN" : null);
  });

for (const [project, events] of Object.entries({ TOKEN: 1, OTHER: 0 }))
  test(`calls of the project ${project}`, async () => {
    const answer = () => ({ "X-Mengpaneel-Calls": '[[["track"],["A"]]]', "X-Mengpaneel-Project": project });
    const { window } = open({ answer });
    const made = [];
    window.Mengpaneel.use(library(made));
    await window.fetch("/cart");
    assert.strictEqual(made.length, events);
  });

test("the script is at most 3 KB, gzipped", () => {
  const size = zlib.gzipSync(source, { level: 9 }).length;
  console.log(`mengpaneel.js: ${size} bytes gzipped`);
  assert.ok(size <= 3072, `${size} bytes`);
});

test("modules import from those below them, as the documentation has them", () => {
  const folder = path.join(__dirname, "..", "..", "static", "src");
  const page = fs.readFileSync(path.join(folder, "..", "..", "docs", "front-ends.md"), "utf8");
  const table = page.slice(page.indexOf("| module |"));
  const cells = table.match(/^\| `.*?\|/gm).join();
  const order = [...cells.matchAll(/`(.*?)`/g)].map(([, name]) => name);
  const entries = fs.readdirSync(folder, { withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const names = files.map((file) => path.parse(file.name).name);
  assert.deepStrictEqual([...order, "module", "types"].sort(), names.sort());

  for (const name of order) {
    const text = fs.readFileSync(path.join(folder, `${name}.ts`), "utf8");
    for (const [, other] of text.matchAll(/^import \{.* from "\.\/(.*)";$/gm))
      assert.ok(order.indexOf(other) > order.indexOf(name), `${name} imports ${other}`);
  }
});

test("a second copy of the script does nothing", () => {
  const { window } = open();
  const { fetch, Mengpaneel } = window;
  require("node:vm").runInContext(source, window);
  assert.strictEqual(window.fetch, fetch);
  assert.strictEqual(window.Mengpaneel, Mengpaneel);
});

test("without storage, calls are made all the same", async () => {
  const { window } = open({ answer: () => ({ "X-Mengpaneel-Calls": '[[["track"],["A"]]]' }) });
  Object.defineProperty(window, "localStorage", {
    get() {
      throw new Error("denied");
    },
  });
  const made = [];
  window.Mengpaneel.use(library(made));
  await window.fetch("/cart");
  assert.strictEqual(made[0].method, "track");
});

test("a call that throws doesn't stop the next", async () => {
  const header = '[[["track"],["A"]],[["reset"],[]]]';
  const { window } = open({ answer: () => ({ "X-Mengpaneel-Calls": header }) });
  const made = [];
  const mixpanel = library(made);
  mixpanel.track = () => {
    throw new Error("broken");
  };
  window.Mengpaneel.use(mixpanel);
  await window.fetch("/cart");
  assert.strictEqual(made[0].method, "reset");
});
