/*! Flask-Mengpaneel inspector, MIT licence */
(() => {
  "use strict";

  // Everything that arrives is untrusted: it becomes text, never markup.
  const STRATEGIES = [
    ["Delayed", "kept in the session for the next page"],
    ["ClientSide", "handed to the page"],
    ["CapableClientSide", "handed to the page's script"],
    ["AsyncServerSide", "given to the background"],
    ["ServerSide", "sent during the request"],
  ];
  const HINTS = Object.fromEntries(STRATEGIES);
  const OTHER = "Other";
  const OPERATIONS = {
    $set: "set",
    $set_once: "set_once",
    $add: "increment",
    $append: "append",
    $union: "union",
    $remove: "remove",
    $unset: "unset",
    $delete: "delete",
  };
  const SET_BY_LIBRARY = new Set(
    "token time distinct_id mp_lib mp_sent_by_lib_version mp_country_code ip".split(" "),
  );
  const SET_ON_PROFILES = new Set(["$browser", "$browser_version", "$os"]);
  const MAX_TEXT = 255;
  const MAX_ROWS = 2000;

  const $ = (id) => document.getElementById(id);
  const list = $("list");
  const filters = $("filters");
  const state = $("state");

  // Rows by key: "a7" is the arrival 7, "c7" the recorded call 7 that hasn't arrived.
  const rows = new Map();
  const channels = new Map();
  let after = 0;
  let cleared = 0;
  let strategy = "";
  let paused = false;
  let timer;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);

    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") made.className = value;
      else made.setAttribute(key, value);
    }

    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }

  // --- What a row says ---

  function entryOfArrival(arrival) {
    const record = isObject(arrival.record) ? arrival.record : {};
    const isEvent = arrival.endpoint === "track" || arrival.endpoint === "import";
    const properties = isObject(record.properties) ? record.properties : {};
    const set = isObject(record.$set) ? record.$set : {};
    const whole = "request" in record && Object.keys(record).length === 1;

    return {
      key: `a${arrival.id}`,
      at: arrival.at,
      kind: isEvent ? "event" : "update",
      name: whole
        ? `Request to /${arrival.endpoint}`
        : isEvent
          ? String(record.event || "(no name)")
          : nameOfUpdate(record),
      summary: isEvent ? summary(ownProperties(properties)) : summaryOfUpdate(record),
      person: arrival.person,
      ways: arrival.ways,
      device: device(isEvent ? properties : set),
      lag: isEvent && !arrival.problem ? lag(arrival.at, properties.time) : 0,
      marks: marksOf(arrival),
      problem: arrival.problem,
      remarks: arrival.remarks,
      duplicateOf: arrival.duplicateOf,
      sections: isEvent ? sectionsOfEvent(record, properties) : sectionsOfUpdate(record),
      record: arrival.record,
      endpoint: arrival.endpoint,
      agent: arrival.agent,
    };
  }

  function entryOfCall(call) {
    const strategyName = call.ways.at(-1).strategy;
    const args = call.wire.at(-1);
    const properties = args.find(isObject) || {};

    return {
      key: `c${call.id}`,
      at: call.at,
      kind: "waiting",
      name: typeof args[0] === "string" && call.name.startsWith("track")
        ? args[0]
        : `${call.name}()`,
      summary: summary(ownProperties(properties)),
      person: String(properties.distinct_id || call.person || ""),
      ways: call.ways,
      device: "",
      lag: 0,
      marks: [
        call.failure
          ? ["bad", "not delivered"]
          : ["waits", strategyName === "Delayed" ? "waits for a page" : "not arrived yet"],
      ],
      problem: call.failure,
      remarks: [],
      duplicateOf: null,
      sections: [["Recorded call", { [call.name]: args.length === 1 ? args[0] : args }]],
      record: call.wire,
      endpoint: "",
      agent: "",
    };
  }

  function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
  }

  function marksOf(arrival) {
    const marks = [];
    const { remarks } = arrival;

    if (arrival.problem) marks.push(["bad", "refused"]);
    if (arrival.duplicateOf) marks.push(["waits", "duplicate"]);

    if (remarks.some((remark) => remark.includes("is cut"))) marks.push(["odd", "cut"]);
    else if (remarks.length) marks.push(["odd", "note"]);

    return marks;
  }

  function ownProperties(properties) {
    return Object.fromEntries(
      Object.entries(properties).filter(
        ([name]) => !name.startsWith("$") && !SET_BY_LIBRARY.has(name),
      ),
    );
  }

  function summary(properties) {
    return Object.entries(properties)
      .slice(0, 4)
      .map(([name, value]) => `${name}: ${brief(value)}`)
      .join("  ·  ");
  }

  function withoutDevice(properties) {
    return Object.fromEntries(
      Object.entries(properties).filter(([name]) => !SET_ON_PROFILES.has(name)),
    );
  }

  function operationsOf(record) {
    return Object.keys(OPERATIONS).filter((name) => name in record);
  }

  function nameOfUpdate(record) {
    const object = "$group_key" in record ? "group" : "people";
    const methods = operationsOf(record).map((name) => OPERATIONS[name]);
    return `${object}.${methods.join(" + ") || "(nothing)"}`;
  }

  function summaryOfUpdate(record) {
    return operationsOf(record)
      .map((name) => {
        const value = record[name];
        if (Array.isArray(value)) return value.map(brief).join(", ");
        return isObject(value) ? summary(withoutDevice(value)) : "";
      })
      .filter(Boolean)
      .join("  ·  ");
  }

  function brief(value) {
    const text = typeof value === "string" ? value : JSON.stringify(value) || "";
    return text.length > 40 ? `${text.slice(0, 39)}…` : text;
  }

  function device(properties) {
    return [properties.$browser, properties.$device || properties.$os]
      .filter((part) => typeof part === "string" && part)
      .join(" · ");
  }

  function lag(at, time) {
    if (typeof time !== "number") return 0;
    return at - (Math.abs(time) > 1e11 ? time / 1000 : time);
  }

  function sectionsOfEvent(record, properties) {
    const own = ownProperties(properties);
    const others = Object.fromEntries(
      Object.entries(properties).filter(([name]) => !(name in own)),
    );
    const outside = { ...record };
    delete outside.event;
    delete outside.properties;

    return [
      ["Properties", own],
      ["Added by the library", others],
      ["Beside the properties", outside],
    ];
  }

  function sectionsOfUpdate(record) {
    const others = { ...record };
    const sections = operationsOf(record).map((name) => {
      delete others[name];
      const value = record[name];
      return [name, isObject(value) ? value : { [name]: value }];
    });

    return [...sections, ["About", others]];
  }

  function wayOf(entry) {
    return entry.ways.length ? entry.ways.at(-1).strategy : OTHER;
  }

  function hue(text) {
    let hash = 7;
    for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 9973;
    // Steps that can be told apart, rather than any of 360.
    return (hash % 24) * 15;
  }

  function shortPerson(person) {
    if (person.startsWith("$device:")) return `device ${person.slice(8, 16)}`;
    return person.length > 28 ? `${person.slice(0, 27)}…` : person;
  }

  function clock(seconds) {
    const date = new Date(seconds * 1000);
    const two = (number) => String(number).padStart(2, "0");
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  }

  function duration(seconds) {
    if (Math.abs(seconds) < 60) return `${seconds.toFixed(1)} s`;
    if (Math.abs(seconds) < 5400) return `${Math.round(seconds / 60)} min`;
    if (Math.abs(seconds) < 172800) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  // --- Drawing ---

  function draw(row) {
    const { entry } = row;
    const details = element("details", { class: `row ${entry.kind}` });
    details.append(drawSummary(entry));
    details.open = row.open;
    details.addEventListener("toggle", () => {
      row.open = details.open;
      if (details.open && !details.dataset.drawn) drawInside(details, entry);
    });

    if (row.open) drawInside(details, entry);
    if (entry.problem) details.classList.add("refused");
    if (entry.duplicateOf) details.classList.add("duplicate");

    row.node.replaceChildren(details);
  }

  function drawSummary(entry) {
    const time = element(
      "time",
      { datetime: new Date(entry.at * 1000).toISOString() },
      clock(entry.at),
    );
    const marks = entry.marks.map(([tone, text]) =>
      element("span", { class: `mark ${tone}` }, text),
    );

    if (entry.lag > 1) {
      marks.push(
        element("span", { class: "lag", title: "from its time to its arrival" },
          `+${duration(entry.lag)}`),
      );
    }

    return element(
      "summary",
      {},
      time,
      element(
        "span",
        { class: "what" },
        element("strong", { class: "name" }, entry.name),
        element("span", { class: "brief" }, entry.summary),
      ),
      element("span", { class: "marks" }, ...marks),
      drawPerson(entry.person, entry.kind === "waiting" ? "not known yet" : "nobody"),
      drawWay(wayOf(entry), entry.ways),
      element("span", { class: "device" }, entry.device),
    );
  }

  function drawPerson(person, otherwise) {
    const dot = element("span", { class: person ? "dot" : "dot nobody" });
    dot.style.setProperty("--hue", hue(person));
    return element("span", { class: "person", title: person }, dot, element("span", { class: "who" }, shortPerson(person) || otherwise));
  }

  // The last way by name; the earlier ones, which it came through, as marks.
  function drawWay(name, ways) {
    const made = element("span", { class: "way", title: ways.map((way) => way.strategy).join(", then ") });

    for (const way of ways.slice(0, -1).slice(-4)) {
      made.append(element("span", { class: `hop ${className(way.strategy)}` }));
    }

    made.append(element("span", { class: `chip ${className(name)}` }, name));
    return made;
  }

  function className(name) {
    return `way-${name.replace(/[^A-Za-z]/g, "")}`;
  }

  function drawInside(details, entry) {
    details.dataset.drawn = "yes";
    const inside = element("div", { class: "inside" });
    const side = element("div", { class: "side" });

    if (entry.problem) {
      const title = entry.kind === "waiting" ? "Not delivered" : "Mixpanel would refuse this";
      side.append(notice("bad", title, [entry.problem]));
    }

    if (entry.remarks.length) side.append(notice("odd", "Mixpanel would change this", entry.remarks));
    if (entry.duplicateOf) side.append(drawDuplicate(entry));

    side.append(drawWays(entry), drawArrival(entry));
    const main = element("div", { class: "values" });

    for (const [title, values] of entry.sections) {
      if (Object.keys(values).length) main.append(drawValues(title, values));
    }

    inside.append(main, side);
    details.append(inside);
  }

  function notice(tone, title, texts) {
    return element(
      "section",
      { class: `notice ${tone}` },
      element("h3", {}, title),
      ...texts.map((text) => element("p", {}, text)),
    );
  }

  function drawDuplicate(entry) {
    const made = notice("waits", "Mixpanel would count this once", [
      "An event of the same name, person, time and $insert_id arrived before.",
    ]);
    const first = rows.get(`a${entry.duplicateOf}`);

    if (first) {
      const button = element("button", { type: "button", class: "small" }, "Go to the first");
      button.addEventListener("click", () => {
        first.node.hidden = false;
        first.node.querySelector("details").open = true;
        first.node.querySelector("summary").focus();
      });
      made.append(button);
    }

    return made;
  }

  function drawWays(entry) {
    const section = element("section", {}, element("h3", {}, "How it got here"));

    if (!entry.ways.length) {
      section.append(element("p", { class: "quiet" },
        "Not recorded by this app: from the page's own script, the browser library itself or another program."));
    }

    for (const way of entry.ways) {
      const steps = Object.entries(way.declined).map(([name, reason]) =>
        element("li", { class: "declined" }, element("b", {}, name), " ", element("span", {}, reason)),
      );
      steps.push(
        element("li", { class: `took ${className(way.strategy)}` },
          element("b", {}, way.strategy), " ", element("span", {}, HINTS[way.strategy] || "took it")),
      );
      section.append(
        element("p", { class: "during" }, way.during || "outside a request", " ", element("time", {}, clock(way.at))),
        element("ol", { class: "chain" }, ...steps),
      );
    }

    return section;
  }

  function drawArrival(entry) {
    const facts = element("dl", { class: "facts" });
    const fact = (name, value) =>
      value && facts.append(element("dt", {}, name), element("dd", {}, value));

    fact("Person", entry.person);
    fact("Endpoint", entry.endpoint && `/${entry.endpoint}`);
    fact("Recorded", entry.lag > 0.05 ? `${duration(entry.lag)} before it arrived` : "");
    fact("Sent by", entry.agent);

    const copy = element("button", { type: "button", class: "small" }, "Copy JSON");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(JSON.stringify(entry.record, null, 2));
      copy.textContent = "Copied";
    });

    return element("section", {}, element("h3", {}, "Arrival"), facts, navigator.clipboard ? copy : "");
  }

  function drawValues(title, values) {
    const table = element("table", {}, element("caption", {}, title));

    for (const [name, value] of Object.entries(values)) {
      table.append(
        element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, ...drawValue(value))),
      );
    }

    return table;
  }

  function drawValue(value) {
    if (typeof value === "string") {
      const kept = cut(value);
      const rest = value.slice(kept.length);
      return [
        element("span", { class: "text" }, kept || "\u201c\u201d"),
        rest ? element("del", { title: "Mixpanel cuts this off" }, rest) : "",
      ];
    }

    const text = JSON.stringify(value, null, 2);
    return [
      isObject(value) || Array.isArray(value)
        ? element("pre", {}, text)
        : element("span", { class: "number" }, text),
    ];
  }

  function cut(text) {
    const bytes = new Uint8Array(MAX_TEXT);
    return text.slice(0, new TextEncoder().encodeInto(text, bytes).read);
  }

  // --- Channels and filters ---

  function drawChannels() {
    for (const [name, hint] of [["", "everything"], ...STRATEGIES, [OTHER, "not recorded by this app"]]) {
      const count = element("span", { class: "count" }, "0");
      const level = element("span", { class: "level" });
      const button = element(
        "button",
        { type: "button", class: `channel ${className(name || "All")}`, "aria-pressed": String(!name), title: hint },
        element("span", { class: "label" }, name || "All"),
        count,
        element("span", { class: "meter", "aria-hidden": "true" }, level),
      );
      button.addEventListener("click", () => {
        strategy = strategy === name ? "" : name;
        filter();
      });
      channels.set(name, { button, count, level });
      $("channels").append(button);
    }
  }

  function drawCounts() {
    const counts = new Map([["", rows.size]]);

    for (const { entry } of rows.values()) {
      const name = wayOf(entry);
      counts.set(name, (counts.get(name) || 0) + 1);
    }

    for (const [name, { button, count, level }] of channels) {
      const number = counts.get(name) || 0;
      count.textContent = number;
      level.style.setProperty("--level", rows.size ? number / rows.size : 0);
      button.setAttribute("aria-pressed", String(strategy === name));
    }
  }

  function drawPeople() {
    const select = filters.elements.person;
    const people = [...new Set([...rows.values()].map(({ entry }) => entry.person))].sort();
    const shown = [...select.options].slice(1).map((option) => option.value);

    if (people.join("\n") === shown.join("\n")) return;

    const chosen = select.value;
    select.length = 1;

    for (const person of people) {
      if (person) select.add(new Option(shortPerson(person), person));
    }

    select.value = people.includes(chosen) ? chosen : "";
  }

  function matches(entry) {
    const { text, kind, person } = filters.elements;
    const wanted = text.value.trim().toLowerCase();

    return (
      (!strategy || wayOf(entry) === strategy) &&
      (!person.value || entry.person === person.value) &&
      (!kind.value || isKind(entry, kind.value)) &&
      (!wanted || searchable(entry).includes(wanted))
    );
  }

  function isKind(entry, kind) {
    if (kind === "refused") return Boolean(entry.problem);
    if (kind === "changed") return entry.remarks.length > 0;
    if (kind === "duplicate") return Boolean(entry.duplicateOf);
    return entry.kind === kind;
  }

  function searchable(entry) {
    entry.searchable ||= `${entry.name} ${entry.person} ${JSON.stringify(entry.record)}`.toLowerCase();
    return entry.searchable;
  }

  function filter() {
    let seen = 0;

    for (const { node, entry } of rows.values()) {
      node.hidden = !matches(entry);
      seen += node.hidden ? 0 : 1;
    }

    drawCounts();
    $("empty").hidden = rows.size > 0;
    $("unmatched").hidden = rows.size === 0 || seen > 0;
  }

  // --- Keeping up ---

  function put(entry) {
    const row = rows.get(entry.key) || { open: false, node: element("li") };
    const isNew = !rows.has(entry.key);
    row.entry = entry;
    rows.set(entry.key, row);
    draw(row);

    if (isNew) place(row);

    return isNew;
  }

  // Newest first; nearly always that is the top.
  function place(row) {
    let next = list.firstElementChild;

    while (next && next.at > row.entry.at) next = next.nextElementSibling;

    row.node.at = row.entry.at;
    list.insertBefore(row.node, next);
  }

  function forget(key) {
    rows.get(key)?.node.remove();
    rows.delete(key);
  }

  function take(feed) {
    const first = after === 0;
    const wiped = feed.cleared !== cleared;

    if (wiped) {
      for (const key of [...rows.keys()]) forget(key);
      cleared = feed.cleared;
    }

    after = feed.after;
    const fresh = [];

    for (const call of feed.calls) {
      if (call.arrived) forget(`c${call.id}`);
      else put(entryOfCall(call));
    }

    for (const arrival of feed.arrivals) {
      const entry = entryOfArrival(arrival);
      if (put(entry)) fresh.push(entry);
    }

    while (rows.size > MAX_ROWS) forget(rows.keys().next().value);

    if (feed.calls.length || feed.arrivals.length || wiped) {
      drawPeople();
      filter();
    }

    if (!first && fresh.length) announce(fresh);
  }

  function announce(fresh) {
    const names = fresh.slice(-3).map((entry) => entry.name).join(", ");
    $("news").textContent = `${fresh.length} arrived: ${names}`;

    for (const entry of fresh) {
      rows.get(entry.key)?.node.classList.add("fresh");
      channels.get(wayOf(entry))?.button.classList.add("lit");
    }

    setTimeout(() => {
      for (const { button } of channels.values()) button.classList.remove("lit");
    }, 600);
  }

  function show(name, text) {
    state.dataset.state = name;
    state.firstElementChild.textContent = text;
  }

  async function poll() {
    clearTimeout(timer);

    if (paused || document.hidden) return;

    try {
      const response = await fetch(`${document.body.dataset.arrivals}?after=${after}`);
      if (!response.ok) throw new Error(String(response.status));
      take(await response.json());
      show("live", "Live");
    } catch {
      show("offline", "No answer, trying again");
    }

    if (paused) show("paused", "Paused");
    clearTimeout(timer);
    timer = setTimeout(poll, 1000);
  }

  drawChannels();
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", poll);

  $("unfilter").addEventListener("click", () => {
    filters.reset();
    strategy = "";
    filter();
  });

  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").textContent = paused ? "Resume" : "Pause";
    $("pause").setAttribute("aria-pressed", String(paused));
    if (paused) show("paused", "Paused");
    poll();
  });

  $("clear").addEventListener("click", async () => {
    await fetch(document.body.dataset.clear, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    });
    for (const key of [...rows.keys()]) forget(key);
    filter();
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;

    if (event.key === "/" && !typing) {
      event.preventDefault();
      filters.elements.text.focus();
    }
  });

  poll();
})();
