// The JavaScript of the documentation does what its pages say.
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const vm = require("node:vm");

const docs = path.join(__dirname, "..", "..", "docs");

/** The only block of a language on a page, or the one that has these words. */
function block(page, language, words = "") {
  const text = fs.readFileSync(path.join(docs, page), "utf8");
  const blocks = [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"))];
  const [found, other] = blocks.map(([, code]) => code).filter((code) => code.includes(words));
  assert.ok(found && !other, page);
  return found;
}

/** What keeps the calls of each of its methods. */
function recorder(made) {
  return new Proxy({}, { get: (_, name) => (...args) => void made.push([name, ...args]) });
}

test("a native client makes calls once, and acknowledges what it has made", async () => {
  const [made, posted, warned] = [[], [], []];
  const responses = [
    [[["identify"], ["42"]], [["register"], [{ Plan: "pro" }]], [["track"], ["View", { Items: 3 }]]],
    [[["people", "set"], [{ Plan: "pro" }]], [["set_group"], ["company", "acme"]]],
    [[["not", "known"], []], [["track"], ["Last", {}]]],
  ];
  const APP = "https://app.example";
  let acknowledge;

  async function fetch(url, { headers, body }) {
    if (url.endsWith("/acks")) {
      posted.push(body);
      return { status: 204 };
    }

    assert.strictEqual(headers["X-Mengpaneel-Flush-Capable"], "true; ack");
    const number = Number(url.split("/").pop());
    const given = { "X-Mengpaneel-Calls": JSON.stringify(responses[number]), "X-Mengpaneel-Hand-Over": `t${number}` };
    return { url, headers: { get: (name) => given[name] } };
  }

  const world = vm.createContext({
    APP,
    fetch,
    mixpanel: recorder(made),
    console: { warn: (error) => warned.push(error) },
    setTimeout: (callback) => (acknowledge = callback),
  });
  const code = block("protocol.md", "js").replace("export async", "async");
  const request = vm.runInContext(`${code}\nrequest`, world);

  // The first one once more, as a cache gives it.
  for (const number of [0, 1, 2, 0]) await request(`/${number}`);
  await acknowledge();

  assert.deepStrictEqual(JSON.parse(JSON.stringify(made)), [
    ["identify", "42"],
    ["registerSuperProperties", { Plan: "pro" }],
    ["track", "View", { Items: 3 }],
    ["registerSuperProperties", { company: ["acme"] }],
    ["track", "Last", {}],
  ]);
  // What it doesn't know, the server sends.
  assert.deepStrictEqual(posted, ["t0 t1"]);
  assert.strictEqual(warned.length, 1);
});

test("a page's own strategy makes the events of a trigger", () => {
  const made = [];
  const document = { body: new EventTarget() };
  vm.runInNewContext(block("strategies.md", "js"), { document, mixpanel: recorder(made) });
  const event = new Event("tracked");
  event.detail = { value: [["View", { Items: 3 }], ["Order", {}]] };
  document.body.dispatchEvent(event);

  assert.deepStrictEqual(made, [["track", "View", { Items: 3 }], ["track", "Order", {}]]);
});

test("a page of another app sends to the inspector", () => {
  const made = [];
  vm.runInNewContext(block("inspector.md", "js"), { mixpanel: recorder(made) });
  const [[method, token, options]] = made;

  assert.deepStrictEqual([method, token], ["init", "anything"]);
  assert.match(options.api_host, /^http:\/\/127\.0\.0\.1:5000\/_mengpaneel\/inspector$/);
});

test("a banner tells its answer, and goes", () => {
  const [script] = block("identity.md", "html").match(/(?<=<script>).*(?=<\/script>)/s);

  for (const [word, given] of [["yes", true], ["no", false]]) {
    const made = [];
    const document = { getElementById: (id) => ({ remove: () => made.push(["remove", id]) }) };
    const world = vm.createContext({ document, Mengpaneel: recorder(made) });
    vm.runInContext(script, world);
    world.answer(word);

    assert.match(document.cookie, new RegExp(`^consent=${word};`));
    assert.deepStrictEqual(made, [["consent", given], ["remove", "banner"]]);
  }
});
