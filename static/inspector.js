/*! Flask-Mengpaneel inspector, MIT licence */
(() => {
  // src/inspector/elements.ts
  function byId(id) {
    return document.getElementById(id);
  }
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== ""));
    return made;
  }

  // src/inspector/format.ts
  var MAX_TEXT_BYTES = 255;
  var MAX_BRIEF = 40;
  var MAX_PERSON = 28;
  var MAX_SECONDS = 1e11;
  function brief(value) {
    return shorten(typeof value === "string" ? value : JSON.stringify(value), MAX_BRIEF);
  }
  function shortPerson(person) {
    if (person.startsWith("$device:")) return `device ${person.slice(8, 16)}`;
    return shorten(person, MAX_PERSON);
  }
  function shorten(text, length) {
    return text.length > length ? `${text.slice(0, length - 1)}…` : text;
  }
  function clock(seconds) {
    const date = new Date(seconds * 1e3);
    return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
  }
  function duration(seconds) {
    const length = Math.abs(seconds);
    if (length < 60) return `${seconds.toFixed(1)} s`;
    if (length < 5400) return `${Math.round(seconds / 60)} min`;
    if (length < 172800) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }
  function lag(at, time) {
    if (typeof time !== "number") return 0;
    return at - (Math.abs(time) > MAX_SECONDS ? time / 1e3 : time);
  }
  function hue(text) {
    let hash = 7;
    for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 9973;
    return hash % 24 * 15;
  }
  function keptText(text) {
    const bytes = new Uint8Array(MAX_TEXT_BYTES);
    return text.slice(0, new TextEncoder().encodeInto(text, bytes).read);
  }

  // src/inspector/json.ts
  function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
  }

  // src/inspector/strategies.ts
  var STRATEGIES = {
    Delayed: "kept in the session for the next page",
    ClientSide: "handed to the page",
    CapableClientSide: "handed to the page's script",
    AsyncServerSide: "sent by the server in the background",
    ServerSide: "sent by the server during the request"
  };
  var OTHER = "Other";
  function lastStrategy(flushes) {
    return flushes.at(-1)?.strategy ?? OTHER;
  }
  function strategyClass(name) {
    return `strategy-${name.replace(/[^A-Za-z]/g, "")}`;
  }

  // src/inspector/entries.ts
  var OPERATIONS = {
    $set: "set",
    $set_once: "set_once",
    $add: "increment",
    $append: "append",
    $union: "union",
    $remove: "remove",
    $unset: "unset",
    $delete: "delete"
  };
  var ADDED_TO_EVENTS = new Set(
    "token time distinct_id mp_lib mp_sent_by_lib_version mp_country_code ip".split(" ")
  );
  var ADDED_TO_PROFILES = /* @__PURE__ */ new Set(["$browser", "$browser_version", "$os"]);
  function arrivalKey(id) {
    return `a${id}`;
  }
  function callKey(id) {
    return `c${id}`;
  }
  function entryOfArrival(arrival) {
    const record = isObject(arrival.record) ? arrival.record : {};
    const isEvent = arrival.endpoint === "track" || arrival.endpoint === "import";
    return {
      key: arrivalKey(arrival.id),
      at: arrival.at,
      kind: isEvent ? "event" : "update",
      person: arrival.person,
      flushes: arrival.flushes,
      marks: marksOf(arrival),
      problem: arrival.problem,
      remarks: arrival.remarks,
      duplicateOf: arrival.duplicateOf,
      record: arrival.record,
      endpoint: arrival.endpoint,
      agent: arrival.agent,
      ...isEvent ? eventParts(record, arrival) : updateParts(record),
      ...isWholeRequest(record) && { name: `Request to /${arrival.endpoint}` }
    };
  }
  function eventParts(record, arrival) {
    const properties = isObject(record.properties) ? record.properties : {};
    return {
      name: String(record.event || "(no name)"),
      summary: summary(ownProperties(properties)),
      device: device(properties),
      lag: arrival.problem ? 0 : lag(arrival.at, properties.time),
      sections: sectionsOfEvent(record, properties)
    };
  }
  function updateParts(record) {
    return {
      name: nameOfUpdate(record),
      summary: summaryOfUpdate(record),
      device: device(isObject(record.$set) ? record.$set : {}),
      lag: 0,
      sections: sectionsOfUpdate(record)
    };
  }
  function isWholeRequest(record) {
    return "request" in record && Object.keys(record).length === 1;
  }
  function entryOfCall(call) {
    const args = call.wire.at(-1);
    const properties = args.find(isObject) || {};
    const tracks = typeof args[0] === "string" && call.name.startsWith("track");
    return {
      key: callKey(call.id),
      at: call.at,
      kind: "not-arrived",
      name: tracks ? String(args[0]) : `${call.name}()`,
      summary: summary(ownProperties(properties)),
      person: String(properties.distinct_id || call.person || ""),
      flushes: call.flushes,
      device: "",
      lag: 0,
      marks: [
        call.failure ? { tone: "error", text: "not delivered" } : { tone: "neutral", text: whyNotArrived(call.flushes) }
      ],
      problem: call.failure,
      remarks: [],
      duplicateOf: null,
      sections: [
        { title: "Recorded call", values: { [call.name]: args.length === 1 ? args[0] : args } }
      ],
      record: call.wire,
      endpoint: "",
      agent: ""
    };
  }
  function whyNotArrived(flushes) {
    if (flushes.at(-1)?.became.startsWith("not sent")) return "not sent";
    return lastStrategy(flushes) === "Delayed" ? "waits for a page" : "not arrived yet";
  }
  function marksOf({ problem, remarks, duplicateOf, flushes }) {
    const marks = [];
    const became = flushes.at(-1)?.became ?? "";
    if (became.startsWith("sent by the server"))
      marks.push({ tone: "neutral", text: "sent by the server" });
    if (problem) marks.push({ tone: "error", text: "refused" });
    if (duplicateOf) marks.push({ tone: "neutral", text: "duplicate" });
    if (remarks.length) {
      const isCut = remarks.some((remark) => remark.includes("is cut"));
      marks.push({ tone: "warning", text: isCut ? "cut" : "note" });
    }
    return marks;
  }
  function ownProperties(properties) {
    return pick(properties, (name) => !name.startsWith("$") && !ADDED_TO_EVENTS.has(name));
  }
  function pick(values, wanted) {
    return Object.fromEntries(Object.entries(values).filter(([name]) => wanted(name)));
  }
  function summary(properties) {
    return Object.entries(properties).slice(0, 4).map(([name, value]) => `${name}: ${brief(value)}`).join("  ·  ");
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
    return operationsOf(record).map((operation) => {
      const value = record[operation];
      if (Array.isArray(value)) return value.map(brief).join(", ");
      if (!isObject(value)) return "";
      return summary(pick(value, (name) => !ADDED_TO_PROFILES.has(name)));
    }).filter(Boolean).join("  ·  ");
  }
  function device(properties) {
    return [properties.$browser, properties.$device || properties.$os].filter((part) => typeof part === "string" && part).join(" · ");
  }
  function sectionsOfEvent(record, properties) {
    const own = ownProperties(properties);
    return [
      { title: "Properties", values: own },
      { title: "Added by the library", values: pick(properties, (name) => !(name in own)) },
      {
        title: "Beside the properties",
        values: pick(record, (name) => name !== "event" && name !== "properties")
      }
    ];
  }
  function sectionsOfUpdate(record) {
    const sections = operationsOf(record).map((operation) => {
      const value = record[operation];
      return { title: operation, values: isObject(value) ? value : { [operation]: value } };
    });
    const others = pick(record, (name) => !(name in OPERATIONS));
    return [...sections, { title: "About", values: others }];
  }

  // src/inspector/feed.ts
  async function fetchFeed(after) {
    const response = await fetch(`${document.body.dataset.arrivals}?after=${after}`);
    if (!response.ok) throw new Error(String(response.status));
    return response.json();
  }
  async function clearServer() {
    await fetch(document.body.dataset.clear, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}"
    });
  }

  // src/inspector/filters.ts
  var LIT_FOR = 600;
  var Filters = class {
    #rows;
    #form = byId("filters");
    #fields = this.#form.elements;
    /** By the strategy's name; "" is all of them. */
    #buttons = /* @__PURE__ */ new Map();
    /** What a row's text is searched in. */
    #searchable = /* @__PURE__ */ new WeakMap();
    #strategy = "";
    constructor(rows2) {
      this.#rows = rows2;
      const strategies = {
        "": "everything",
        ...STRATEGIES,
        [OTHER]: "not recorded by this app"
      };
      for (const [name, hint] of Object.entries(strategies)) this.#addButton(name, hint);
      this.#form.addEventListener("input", () => this.apply());
      this.#form.addEventListener("submit", (event) => event.preventDefault());
      byId("unfilter").addEventListener("click", () => this.#reset());
    }
    /** Show the rows that match, and hide the others. */
    apply() {
      let shown = 0;
      for (const { node, entry } of this.#rows) {
        node.hidden = !this.#matches(entry);
        if (!node.hidden) shown += 1;
      }
      this.#drawCounts();
      byId("empty").hidden = this.#rows.size > 0;
      byId("unmatched").hidden = this.#rows.size === 0 || shown > 0;
    }
    /** Offer the people in the rows, and no others. */
    offerPeople() {
      const select = this.#fields.person;
      const people = [...new Set([...this.#rows].map(({ entry }) => entry.person))].filter(Boolean).sort();
      const offered = [...select.options].slice(1).map((option) => option.value);
      if (people.join("\n") === offered.join("\n")) return;
      const chosen = select.value;
      select.length = 1;
      for (const person of people) select.add(new Option(shortPerson(person), person));
      select.value = people.includes(chosen) ? chosen : "";
    }
    /** Light the buttons of strategies for a moment. */
    light(strategies) {
      for (const name of strategies) this.#buttons.get(name)?.button.classList.add("lit");
      setTimeout(() => {
        for (const { button } of this.#buttons.values()) button.classList.remove("lit");
      }, LIT_FOR);
    }
    focusText() {
      this.#fields.text.focus();
    }
    #addButton(name, hint) {
      const count = element("span", { class: "count" }, "0");
      const level = element("span", { class: "level" });
      const button = element(
        "button",
        {
          type: "button",
          class: `channel ${strategyClass(name || "All")}`,
          "aria-pressed": String(!name),
          title: hint
        },
        element("span", { class: "label" }, name || "All"),
        count,
        element("span", { class: "meter", "aria-hidden": "true" }, level)
      );
      button.addEventListener("click", () => {
        this.#strategy = this.#strategy === name ? "" : name;
        this.apply();
      });
      this.#buttons.set(name, { button, count, level });
      byId("channels").append(button);
    }
    #drawCounts() {
      const counts = /* @__PURE__ */ new Map([["", this.#rows.size]]);
      for (const { entry } of this.#rows) {
        const name = lastStrategy(entry.flushes);
        counts.set(name, (counts.get(name) || 0) + 1);
      }
      for (const [name, { button, count, level }] of this.#buttons) {
        const number = counts.get(name) || 0;
        count.textContent = String(number);
        level.style.setProperty("--level", String(number / (this.#rows.size || 1)));
        button.setAttribute("aria-pressed", String(this.#strategy === name));
      }
    }
    #matches(entry) {
      const { text, kind, person } = this.#fields;
      const wanted = text.value.trim().toLowerCase();
      return (!this.#strategy || lastStrategy(entry.flushes) === this.#strategy) && (!person.value || entry.person === person.value) && (!kind.value || isKind(entry, kind.value)) && (!wanted || this.#searchableText(entry).includes(wanted));
    }
    #searchableText(entry) {
      let text = this.#searchable.get(entry);
      if (text === void 0) {
        const { name, person, record } = entry;
        text = `${name} ${person} ${JSON.stringify(record)}`.toLowerCase();
        this.#searchable.set(entry, text);
      }
      return text;
    }
    #reset() {
      this.#form.reset();
      this.#strategy = "";
      this.apply();
    }
  };
  function isKind(entry, kind) {
    if (kind === "refused") return Boolean(entry.problem);
    if (kind === "changed") return entry.remarks.length > 0;
    if (kind === "duplicate") return Boolean(entry.duplicateOf);
    return entry.kind === kind;
  }

  // src/inspector/details.ts
  function drawDetails(entry, showFirst) {
    const values = entry.sections.filter((section) => Object.keys(section.values).length).map(drawSection);
    return element(
      "div",
      { class: "inside" },
      element("div", { class: "values" }, ...values),
      element(
        "div",
        { class: "side" },
        ...drawNotices(entry, showFirst),
        drawFlushes(entry.flushes),
        drawArrival(entry)
      )
    );
  }
  function drawNotices(entry, showFirst) {
    const notices = [];
    if (entry.problem) {
      const notArrived = entry.kind === "not-arrived";
      const title = notArrived ? "Not delivered" : "Mixpanel would refuse this";
      notices.push(drawNotice("error", title, [entry.problem]));
    }
    if (entry.remarks.length) {
      notices.push(drawNotice("warning", "Mixpanel would change this", entry.remarks));
    }
    if (entry.duplicateOf) notices.push(drawDuplicate(showFirst));
    return notices;
  }
  function drawNotice(tone, title, texts) {
    return element(
      "section",
      { class: `notice ${tone}` },
      element("h3", {}, title),
      ...texts.map((text) => element("p", {}, text))
    );
  }
  function drawDuplicate(showFirst) {
    const notice = drawNotice("neutral", "Mixpanel would count this once", [
      "An event of the same name, person, time and $insert_id arrived before."
    ]);
    if (showFirst) notice.append(drawButton("Go to the first", showFirst));
    return notice;
  }
  function drawButton(text, click) {
    const button = element("button", { type: "button", class: "small" }, text);
    button.addEventListener("click", click);
    return button;
  }
  function drawFlushes(flushes) {
    const section = element("section", {}, element("h3", {}, "How it got here"));
    if (!flushes.length) {
      section.append(
        element(
          "p",
          { class: "quiet" },
          "This app didn't record it: it comes from the page's own script, the browser library itself or another program."
        )
      );
    }
    for (const flush of flushes) section.append(...drawFlush(flush));
    return section;
  }
  function drawFlush({ strategy, declined, at, during, became }) {
    const step = (kind, name, text) => element("li", { class: kind }, element("b", {}, name), " ", element("span", {}, text));
    const steps = Object.entries(declined).map(
      ([name, reason]) => step("declined", name, reason)
    );
    steps.push(
      step(`took ${strategyClass(strategy)}`, strategy, STRATEGIES[strategy] || "took it")
    );
    if (became) steps.push(element("li", { class: "became" }, became));
    return [
      element(
        "p",
        { class: "during" },
        during || "outside a request",
        " ",
        element("time", {}, clock(at))
      ),
      element("ol", { class: "chain" }, ...steps)
    ];
  }
  function drawArrival(entry) {
    const facts = Object.entries({
      Person: entry.person,
      Endpoint: entry.endpoint && `/${entry.endpoint}`,
      Recorded: entry.lag > 0.05 ? `${duration(entry.lag)} before it arrived` : "",
      "Sent by": entry.agent
    }).filter(([, value]) => value);
    return element(
      "section",
      {},
      element("h3", {}, "Arrival"),
      element(
        "dl",
        { class: "facts" },
        ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])
      ),
      // Pages that are neither local nor on https have no clipboard.
      navigator.clipboard ? drawCopyButton(entry.record) : ""
    );
  }
  function drawCopyButton(record) {
    const button = drawButton("Copy JSON", async () => {
      await navigator.clipboard.writeText(JSON.stringify(record, null, 2));
      button.textContent = "Copied";
    });
    return button;
  }
  function drawSection({ title, values }) {
    const rows2 = Object.entries(values).map(
      ([name, value]) => element(
        "tr",
        {},
        element("th", { scope: "row" }, name),
        element("td", {}, ...drawValue(value))
      )
    );
    return element("table", {}, element("caption", {}, title), ...rows2);
  }
  function drawValue(value) {
    if (typeof value === "string") return drawText(value);
    const text = JSON.stringify(value, null, 2);
    return isObject(value) || Array.isArray(value) ? [element("pre", {}, text)] : [element("span", { class: "number" }, text)];
  }
  function drawText(text) {
    const kept = keptText(text);
    const cut = text.slice(kept.length);
    const parts = [element("span", { class: "text" }, kept || "“”")];
    if (cut) parts.push(element("del", { title: "Mixpanel cuts this off" }, cut));
    return parts;
  }

  // src/inspector/summary.ts
  var MAX_EARLIER = 4;
  function drawSummary(entry) {
    return element(
      "summary",
      {},
      element(
        "time",
        { datetime: new Date(entry.at * 1e3).toISOString() },
        clock(entry.at)
      ),
      element(
        "span",
        { class: "what" },
        element("strong", { class: "name" }, entry.name),
        element("span", { class: "brief" }, entry.summary)
      ),
      element("span", { class: "marks" }, ...entry.marks.map(drawMark), ...drawLag(entry.lag)),
      drawPerson(entry.person, entry.kind === "not-arrived" ? "not known yet" : "nobody"),
      drawStrategies(entry.flushes),
      element("span", { class: "device" }, entry.device)
    );
  }
  function drawMark({ tone, text }) {
    return element("span", { class: `mark ${tone}` }, text);
  }
  function drawLag(lag2) {
    if (lag2 <= 1) return [];
    const title = "from its time to its arrival";
    return [element("span", { class: "lag", title }, `+${duration(lag2)}`)];
  }
  function drawPerson(person, otherwise) {
    const dot = element("span", { class: person ? "dot" : "dot nobody" });
    dot.style.setProperty("--hue", String(hue(person)));
    return element(
      "span",
      { class: "person", title: person },
      dot,
      element("span", { class: "who" }, shortPerson(person) || otherwise)
    );
  }
  function drawStrategies(flushes) {
    const last = lastStrategy(flushes);
    const earlier = flushes.slice(0, -1).slice(-MAX_EARLIER).map(({ strategy }) => element("span", { class: `earlier ${strategyClass(strategy)}` }));
    return element(
      "span",
      {
        class: "strategy",
        title: flushes.map((flush) => flush.strategy).join(", then ")
      },
      ...earlier,
      element("span", { class: `chip ${strategyClass(last)}` }, last)
    );
  }

  // src/inspector/rows.ts
  var MAX_ROWS = 2e3;
  var Rows = class {
    /** In the order in which they came. */
    #rows = /* @__PURE__ */ new Map();
    #list = byId("list");
    get size() {
      return this.#rows.size;
    }
    [Symbol.iterator]() {
      return this.#rows.values();
    }
    get(key) {
      return this.#rows.get(key);
    }
    /** Show an entry, in place of the one with its key; tell whether there was none. */
    put(entry) {
      const known = this.#rows.get(entry.key);
      if (known) {
        known.entry = entry;
        this.#draw(known);
        return false;
      }
      const row = { entry, node: element("li"), open: false };
      this.#rows.set(entry.key, row);
      this.#draw(row);
      this.#insert(row);
      return true;
    }
    remove(key) {
      this.#rows.get(key)?.node.remove();
      this.#rows.delete(key);
    }
    clear() {
      for (const key of [...this.#rows.keys()]) this.remove(key);
    }
    /** Remove the rows that came first until there are no more than there may be. */
    trim() {
      for (const key of this.#rows.keys()) {
        if (this.#rows.size <= MAX_ROWS) return;
        this.remove(key);
      }
    }
    /** Put a row before all that are older; nearly always that is the top. */
    #insert(row) {
      let next = this.#list.firstElementChild;
      while (next && timeOf(next) > row.entry.at) next = next.nextElementSibling;
      row.node.dataset.at = String(row.entry.at);
      this.#list.insertBefore(row.node, next);
    }
    #draw(row) {
      const { entry } = row;
      const details = element("details", { class: `row ${entry.kind}` }, drawSummary(entry));
      details.classList.toggle("refused", Boolean(entry.problem));
      details.classList.toggle("duplicate", Boolean(entry.duplicateOf));
      details.open = row.open;
      let drawn = false;
      const drawInside = () => {
        if (!drawn) details.append(drawDetails(entry, this.#showFirst(entry)));
        drawn = true;
      };
      details.addEventListener("toggle", () => {
        row.open = details.open;
        if (details.open) drawInside();
      });
      if (row.open) drawInside();
      row.node.replaceChildren(details);
    }
    /** Return what opens the row of which an entry is a duplicate, if it is here. */
    #showFirst({ duplicateOf }) {
      const first = duplicateOf && this.#rows.get(arrivalKey(duplicateOf));
      if (!first) return void 0;
      return () => {
        first.node.hidden = false;
        first.node.querySelector("details").open = true;
        first.node.querySelector("summary").focus();
      };
    }
  };
  function timeOf(node) {
    return Number(node.dataset.at);
  }

  // src/inspector/main.ts
  var POLL_INTERVAL = 1e3;
  var rows = new Rows();
  var filters = new Filters(rows);
  var revision = 0;
  var cleared = 0;
  var paused = false;
  var timer;
  function applyFeed(feed) {
    const isFirst = revision === 0;
    const isCleared = feed.cleared !== cleared;
    revision = feed.after;
    cleared = feed.cleared;
    if (isCleared) rows.clear();
    for (const call of feed.calls) {
      if (call.arrived) rows.remove(callKey(call.id));
      else rows.put(entryOfCall(call));
    }
    const fresh = feed.arrivals.map(entryOfArrival).filter((entry) => rows.put(entry));
    rows.trim();
    if (feed.calls.length || feed.arrivals.length || isCleared) {
      filters.offerPeople();
      filters.apply();
    }
    if (!isFirst && fresh.length) announce(fresh);
  }
  function announce(fresh) {
    const names = fresh.slice(-3).map((entry) => entry.name);
    byId("news").textContent = `${fresh.length} arrived: ${names.join(", ")}`;
    for (const { key } of fresh) rows.get(key)?.node.classList.add("fresh");
    filters.light(fresh.map((entry) => lastStrategy(entry.flushes)));
  }
  function showState(name, text) {
    const state = byId("state");
    state.dataset.state = name;
    state.firstElementChild.textContent = text;
  }
  async function poll() {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    try {
      applyFeed(await fetchFeed(revision));
      showState("live", "Live");
    } catch {
      showState("offline", "No answer, trying again");
    }
    if (paused) showState("paused", "Paused");
    clearTimeout(timer);
    timer = setTimeout(poll, POLL_INTERVAL);
  }
  function togglePause() {
    paused = !paused;
    const button = byId("pause");
    button.textContent = paused ? "Resume" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
    if (paused) showState("paused", "Paused");
    void poll();
  }
  async function clear() {
    await clearServer();
    rows.clear();
    filters.apply();
  }
  byId("pause").addEventListener("click", togglePause);
  byId("clear").addEventListener("click", clear);
  document.addEventListener("visibilitychange", poll);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      filters.focusText();
    }
  });
  void poll();
})();
