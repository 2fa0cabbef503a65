// What becomes of hand-overs, step by step: what browsers do when they like, a window of
// one's own does when it is told.
const assert = require("node:assert");
const { test } = require("node:test");
const { library, open } = require("./script.js");

const ACKS = "https://app.example/_mengpaneel/acks";
const CALLS = "https://app.example/_mengpaneel/calls";
const track = (event) => [["track"], [event, { distinct_id: "7" }]];

/** A window that acknowledges; `views` are the app's responses, by their paths. */
function visit({ views = {}, calls, handover, mixpanel = () => ({ status: 1 }), app = () => 204, instance, ...more } = {}) {
  const world = open({
    data: { acks: "/_mengpaneel/acks", fallback: "/_mengpaneel/calls", calls, handover },
    answer: (url) => {
      const [calls, token, project] = views[url] || [];
      return {
        ...calls && { "X-Mengpaneel-Calls": JSON.stringify(calls), "X-Mengpaneel-Signature": "signed" },
        ...token && { "X-Mengpaneel-Hand-Over": token },
        ...project && { "X-Mengpaneel-Project": project },
      };
    },
    answers: (url, body) => {
      if (url.includes("/_mengpaneel/")) return app();
      if (url.startsWith("https://app.example/")) return 200;
      return mixpanel(JSON.parse(new URLSearchParams(body).get("data")).map(({ event }) => event));
    },
    ...more,
  });
  const posts = (path) => world.requests.filter(({ url }) => url == path).map(({ body }) => body);
  world.window.Mengpaneel.use(instance || library([]));
  return Object.assign(world, {
    acks: () => posts(ACKS),
    acknowledged: () => posts(ACKS).flatMap((body) => body.split(" ")),
    handedBack: () => posts(CALLS).map((body) => JSON.parse(body)),
    sent: () =>
      world.requests
        .filter(({ url, keepalive }) => url.startsWith("https://api.example/") && keepalive)
        .map(({ how, body }) => [how, ...JSON.parse(new URLSearchParams(body).get("data")).map(({ event }) => event)]),
  });
}

test("hand-overs of one second are acknowledged together, and no more than 100", async () => {
  const views = Object.fromEntries([...Array(130).keys()].map((n) => [`/${n}`, [[track("A")], `${n}.x`]]));
  const { window, acks, acknowledged, settle } = visit({ views });
  for (const path in views) await window.fetch(path);
  await settle();
  assert.deepStrictEqual(acks().map((body) => body.split(" ").length), [100]);
  views["/more"] = [[track("B")], "more.x"];
  await window.fetch("/more");
  await settle();
  assert.strictEqual(acknowledged().length, 131);
  assert.strictEqual(new Set(acknowledged()).size, 131);
});

for (const status of [429, 500, 503, new Error("offline")])
  test(`what the app didn't take (${status}) goes with the next`, async () => {
    let answer = status;
    const views = { "/a": [[track("A")], "a.x"], "/b": [[track("B")], "b.x"] };
    const { window, acks, settle } = visit({ views, app: () => answer });
    await window.fetch("/a");
    await settle();
    answer = 204;
    await window.fetch("/b");
    await settle();
    assert.deepStrictEqual(acks(), ["a.x", "a.x b.x"]);
  });

for (const status of [204, 400, 403, 413])
  test(`after ${status} the app isn't asked again`, async () => {
    const views = { "/a": [[track("A")], "a.x"], "/b": [[track("B")], "b.x"] };
    const { window, acks, settle } = visit({ views, app: () => status });
    for (const path in views) {
      await window.fetch(path);
      await settle();
    }
    assert.deepStrictEqual(acks(), ["a.x", "b.x"]);
  });

const FORTY_FIVE = [...Array(45).keys()].map((number) => track(`E${number}`));

test("a hand-over of several requests is acknowledged after the last", async () => {
  const held = [];
  const mixpanel = () => new Promise((done) => held.push(() => done({ status: 1 })));
  const { acknowledged, sent, settle } = visit({ calls: [["once", FORTY_FIVE]], handover: "a.x", mixpanel });
  for (let number = 1; number <= 3; number++) {
    await settle();
    assert.strictEqual(sent().length, number);
    assert.deepStrictEqual(acknowledged(), []);
    held.shift()();
  }
  await settle();
  assert.deepStrictEqual(acknowledged(), ["a.x"]);
});

test("when one of its requests fails, what wasn't sent before goes back at once", async () => {
  const views = { "/b": [[track("B")], "b.x"] };
  const mixpanel = (events) => ({ status: events.includes("E20") ? 0 : 1 });
  const world = visit({ calls: [["once", FORTY_FIVE]], handover: "a.x", mixpanel, views });
  await world.window.fetch("/b");
  await world.settle();
  assert.deepStrictEqual(world.sent().map((one) => one.slice(1).join()), [
    FORTY_FIVE.slice(0, 20).map((call) => call[1][0]).join(),
    FORTY_FIVE.slice(20, 40).map((call) => call[1][0]).join(),
    "B",
  ]);
  const [back] = world.handedBack();
  assert.strictEqual(world.handedBack().length, 1);
  assert.strictEqual(back.handover, "a.x");
  assert.deepStrictEqual(back.calls, [...Array(25).keys()].map((number) => number + 20));
  assert.deepStrictEqual(world.acknowledged(), ["b.x"]);
});

test("a page's calls may have the id of its token", async () => {
  const { acknowledged, sent, settle } = visit({ calls: [["a", [track("A")]]], handover: "a.x" });
  await settle();
  assert.deepStrictEqual(sent(), [["fetch", "A"]]);
  assert.deepStrictEqual(acknowledged(), ["a.x"]);
});

test("the same page once more makes no event, and says nothing of the first", async () => {
  const store = {};
  const page = { calls: [[null, [[["register"], [{ Plan: "pro" }]]]], ["a", [track("A")]]], handover: "1.x", store };
  const first = visit({ ...page, mixpanel: () => new Promise(() => {}) });
  await first.settle();
  const second = visit(page);
  await second.settle();
  assert.deepStrictEqual(first.sent(), [["fetch", "A"]]);
  assert.deepStrictEqual(second.sent(), []);
  assert.deepStrictEqual([...first.acknowledged(), ...second.acknowledged()], []);
});

test("another page with the same calls is acknowledged for its own", async () => {
  const store = {};
  const first = visit({ calls: [["a", [track("A")]]], handover: "1.x", store });
  const second = visit({ calls: [["a", [track("A")]], ["b", [track("B")]]], handover: "2.x", store });
  const third = visit({ calls: [["a", [track("A")]]], handover: "3.x", store });
  for (const { settle } of [first, second, third]) await settle();
  assert.deepStrictEqual(second.sent(), [["fetch", "B"]]);
  assert.deepStrictEqual(second.acknowledged(), ["2.x"]);
  assert.deepStrictEqual(third.sent(), []);
  assert.deepStrictEqual(third.acknowledged(), ["3.x"]);
});

/** A page that was left and is shown again before Mixpanel answers. */
const answeredAfter = async (status) => {
  let answer;
  const world = visit({
    calls: [["a", [track("A")]]], handover: "a.x",
    mixpanel: () => new Promise((done) => (answer = done)),
  });
  await world.settle();
  world.listeners.pagehide();
  world.listeners.pageshow();
  answer({ status });
  await world.settle();
  return world;
};

test("a page that is shown again acknowledges what was under way", async () => {
  const world = await answeredAfter(1);
  assert.deepStrictEqual(world.acknowledged(), ["a.x"]);
  assert.deepStrictEqual(world.sent(), [["fetch", "A"]]);
});

test("a page that is shown again goes on, though it never hears what was answered", async () => {
  const views = { "/b": [[track("B")], "b.x"] };
  const mixpanel = (events) => events.includes("A") ? new Promise(() => {}) : { status: 1 };
  const world = visit({ calls: [["a", [track("A")]]], handover: "a.x", views, mixpanel });
  await world.settle();
  world.listeners.pagehide();
  world.listeners.pageshow();
  await world.window.fetch("/b");
  await world.settle();
  assert.deepStrictEqual(world.acknowledged(), ["b.x"]);
});

test("a page that is shown again hands back what was refused meanwhile", async () => {
  const world = await answeredAfter(0);
  assert.deepStrictEqual(world.acknowledged(), []);
  assert.deepStrictEqual(world.handedBack().map(({ handover }) => handover), ["a.x"]);
});

test("what a beacon took when the page was left is never acknowledged", async () => {
  const views = { "/a": [[track("A")], "a.x"], "/b": [[track("B")], "b.x"] };
  let answer;
  const world = visit({ views, mixpanel: () => new Promise((done) => (answer = done)) });
  await world.window.fetch("/a");
  await world.window.fetch("/b");
  world.listeners.pagehide();
  assert.deepStrictEqual(world.sent(), [["fetch", "A"], ["beacon", "B"]]);
  world.listeners.pageshow();
  answer({ status: 1 });
  await world.settle();
  assert.deepStrictEqual(world.acknowledged(), ["a.x"]);
  assert.deepStrictEqual(world.handedBack(), []);
});

test("a page that is left says at once what it knows", async () => {
  const world = visit({ views: { "/a": [[track("A")], "a.x"] } });
  await world.window.fetch("/a");
  await new Promise(setImmediate);
  assert.deepStrictEqual(world.acks(), []);
  world.listeners.pagehide();
  assert.deepStrictEqual(world.acks(), ["a.x"]);
  await world.settle();
  assert.deepStrictEqual(world.acks(), ["a.x"]);
});

test("another project's hand-over is neither made nor acknowledged", async () => {
  const views = { "/a": [[track("A")], "a.x", "OTHER"], "/b": [[track("B")], "b.x", "TOKEN"] };
  const { window, acknowledged, sent, settle } = visit({ views });
  for (const path in views) await window.fetch(path);
  await settle();
  assert.deepStrictEqual(sent(), [["fetch", "B"]]);
  assert.deepStrictEqual(acknowledged(), ["b.x"]);
});

test("operations on profiles and groups are the server's", async () => {
  const calls = [
    [["people", "set"], [{ Plan: "pro" }]],
    [["get_group"], ["company", "acme"], ["set"], [{ Seats: 12 }]],
    [["set_group"], ["company", ["acme"]]],
  ];
  const made = [];
  const world = visit({ calls: [["a", calls]], handover: "a.x", instance: library(made) });
  await world.settle();
  const expected = [{ method: "register", arguments: [{ company: ["acme"] }] }];
  assert.deepStrictEqual(JSON.parse(JSON.stringify(made)), expected);
  assert.deepStrictEqual(world.acknowledged(), ["a.x"]);
});

test("of a library whose messages can't be seen, nothing is believed", async () => {
  const instance = library([]);
  delete instance.add_hook;
  const world = visit({ calls: [["a", [track("A")]]], handover: "a.x", instance });
  await world.settle();
  assert.deepStrictEqual(world.acknowledged(), []);
  assert.deepStrictEqual(world.handedBack().map(({ calls, blocked }) => [calls, blocked]), [[[0], true]]);
});

for (const status of [1, 0])
  test(`on a page without data nothing fails, whatever Mixpanel answers: ${status}`, async () => {
    const views = { "/a": [[track("A")], "a.x"] };
    const world = visit({ views, mixpanel: () => ({ status }), data: null });
    await world.window.fetch("/a");
    await world.settle();
    world.listeners.pagehide();
    assert.deepStrictEqual(world.sent(), [["fetch", "A"]]);
    assert.deepStrictEqual([...world.acks(), ...world.handedBack()], []);
  });

test("without storage, hand-overs are acknowledged all the same", async () => {
  const store = new Proxy({}, { get() { throw new Error("denied"); }, set() { throw new Error("denied"); } });
  const { acknowledged, settle } = visit({ calls: [["a", [track("A")]]], handover: "a.x", store });
  await settle();
  assert.deepStrictEqual(acknowledged(), ["a.x"]);
});

test("a page that may never be shown acknowledges when it is", async () => {
  const world = visit({ calls: [["a", [track("A")]]], handover: "a.x", prerendering: true });
  await world.settle();
  assert.deepStrictEqual([world.sent(), world.acknowledged()], [[], []]);
  world.listeners.prerenderingchange();
  await world.settle();
  assert.deepStrictEqual(world.acknowledged(), ["a.x"]);
});

/** Numbers from 0 to 1, the same ones for the same seed. */
const numbers = (seed) => () => {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return seed / 2147483648;
};

for (let seed = 1; seed <= 200; seed++)
  test(`what is acknowledged has arrived, and the rest is known not to have: ${seed}`, async () => {
    const random = numbers(seed);
    const views = {};
    const taken = [];
    const held = [];
    const mixpanel = (events) =>
      new Promise((done) =>
        held.push(() => {
          const chance = random();
          if (chance < 0.6) {
            taken.push(...events);
            done({ status: 1 });
          } else done([{ status: 0 }, 503, new Error("unreachable")][Math.floor(random() * 3)]);
        }),
      );
    const world = visit({ views, mixpanel, app: () => (random() < 0.7 ? 204 : 503) });

    for (let step = 0; step < 30; step++) {
      const chance = random();
      if (chance < 0.4) {
        const calls = [...Array(Math.floor(random() * 30)).keys()].map((n) => (random() < 0.1 ? [["register"], [{ n }]] : track(`${step}-${n}`)));
        views[`/${step}`] = [calls, `${step}.x`];
        await world.window.fetch(`/${step}`);
      } else if (chance < 0.8) held.splice(0, 1).forEach((answer) => answer());
      else if (chance < 0.9) await world.settle();
      else {
        world.listeners.pagehide();
        world.listeners.pageshow();
      }
    }
    for (let round = 0; round < 100; round++) {
      held.splice(0).forEach((answer) => answer());
      await world.settle();
    }
    world.listeners.pagehide();

    const acknowledged = new Set(world.acknowledged());
    const back = world.handedBack();
    for (const [calls, token] of Object.values(views)) {
      const events = calls.flatMap(([[name], [event]]) => (name == "track" ? [event] : []));
      if (acknowledged.has(token)) assert.deepStrictEqual(events.filter((event) => !taken.includes(event)), []);
      const mine = back.filter(({ handover }) => handover == token);
      assert.ok(mine.length <= 1);
      assert.ok(!(mine.length && acknowledged.has(token)));
      for (const { calls: positions } of mine) {
        // What isn't handed back has arrived, or is on a beacon's way.
        const beacons = world.sent().filter(([how]) => how == "beacon").flat();
        const given = positions.map((position) => calls[position][1][0]);
        assert.deepStrictEqual(events.filter((event) => ![...taken, ...given, ...beacons].includes(event)), []);
        assert.deepStrictEqual(given.filter((event) => taken.includes(event)), []);
      }
    }
    assert.deepStrictEqual(Object.keys(world.store).filter((key) => key.endsWith("undelivered") && world.store[key] != "[]"), []);
  });
