/*! Flask-Mengpaneel inspector, MIT licence */
(() => {
  // src/inspector/address.ts
  function addressOfPerson(person) {
    return `?${new URLSearchParams({ person })}`;
  }
  function filtersInAddress() {
    return new URLSearchParams(location.search);
  }
  function setFilters(filters2) {
    replaceAddress(String(filters2), keyInAddress());
  }
  function keyInAddress() {
    return location.hash.slice(1);
  }
  function setKey(key) {
    if (key !== keyInAddress()) replaceAddress(location.search.slice(1), key);
  }
  function replaceAddress(query, key) {
    const address = location.pathname + (query && `?${query}`) + (key && `#${key}`);
    history.replaceState(null, "", address);
  }

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
    return shorten(fullText(value), MAX_BRIEF);
  }
  function fullText(value) {
    return typeof value === "string" ? value : JSON.stringify(value);
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
  var CAMPAIGN = /^(utm_\w+|([dg]|fb|ms|tt|tw)clid|[gw]braid|sccid|ko_click_id|li_fat_id|mp_keyword)$/;
  var ADDED_TO_PROFILES = /* @__PURE__ */ new Set(["$browser", "$browser_version", "$os"]);
  function arrivalKey(id) {
    return `a${id}`;
  }
  function callKey(id) {
    return `c${id}`;
  }
  function unrecordedKey(id) {
    return `u${id}`;
  }
  function entryOfArrival(arrival, partly) {
    const record = isObject(arrival.record) ? arrival.record : {};
    const isEvent = arrival.endpoint === "track" || arrival.endpoint === "import";
    return {
      key: arrivalKey(arrival.id),
      at: arrival.at,
      kind: isEvent ? "event" : "update",
      person: arrival.person,
      sentAs: String(sentAs(record) ?? ""),
      flushes: arrival.flushes,
      state: stateOf(arrival.flushes),
      sources: sourcesOf(arrival.flushes),
      during: "",
      insertId: arrivalInsertId(arrival),
      leftOut: leftOutOf(partly),
      marks: [...marksOf(arrival), ...leftOutMarks(partly)],
      problem: arrival.problem,
      remarks: arrival.remarks,
      undeclared: arrival.undeclared,
      duplicateOf: arrival.duplicateOf,
      record: arrival.record,
      endpoint: arrival.endpoint,
      agent: arrival.agent,
      ...isEvent ? eventParts(record, arrival) : updateParts(record),
      ...isWholeRequest(record) && { name: `Request to /${arrival.endpoint}` }
    };
  }
  function arrivalInsertId({ record }) {
    const properties = isObject(record) && isObject(record.properties) ? record.properties : {};
    return String(properties.$insert_id ?? "");
  }
  function callInsertId({ wire }) {
    return String(wire.at(-1).find(isObject)?.$insert_id ?? "");
  }
  function sentAs(record) {
    const properties = isObject(record.properties) ? record.properties : {};
    return record.$distinct_id ?? properties.distinct_id;
  }
  function eventParts(record, arrival) {
    const properties = isObject(record.properties) ? record.properties : {};
    const sorted = sortProperties(properties, arrival.own);
    const shown = { ...sorted.own, ...sorted.registered, ...sorted.campaign };
    return {
      name: String(record.event || "(no name)"),
      properties: shown,
      summary: summary(shown),
      device: device(properties),
      lag: arrival.problem ? 0 : lag(arrival.at, properties.time),
      sections: sectionsOfEvent(record, sorted)
    };
  }
  function updateParts(record) {
    return {
      name: nameOfUpdate(record),
      properties: {},
      summary: summaryOfUpdate(record),
      device: device(isObject(record.$set) ? record.$set : {}),
      lag: 0,
      sections: sectionsOfUpdate(record)
    };
  }
  function isWholeRequest(record) {
    return "request" in record && Object.keys(record).length === 1;
  }
  function entryOfCall(call, partly) {
    const args = call.wire.at(-1);
    const properties = args.find(isObject) || {};
    const tracks = typeof args[0] === "string" && call.name.startsWith("track");
    const state = stateOf(call.flushes);
    const own = tracks ? sortProperties(properties, null).own : properties;
    return {
      key: callKey(call.id),
      at: call.at,
      kind: "not-arrived",
      name: tracks ? String(args[0]) : `${call.name}()`,
      properties: own,
      summary: summary(own),
      person: String(properties.distinct_id || call.person || ""),
      sentAs: "",
      flushes: call.flushes,
      state,
      sources: sourcesOf(call.flushes),
      during: "",
      insertId: callInsertId(call),
      leftOut: leftOutOf(partly),
      device: "",
      lag: 0,
      marks: [whyNotArrived(call, state), ...leftOutMarks(partly)],
      problem: call.failure,
      remarks: [],
      undeclared: "",
      duplicateOf: null,
      sections: [
        { title: "Recorded call", values: { [call.name]: args.length === 1 ? args[0] : args } }
      ],
      record: call.wire,
      endpoint: "",
      agent: ""
    };
  }
  function entryOfUnrecorded(call) {
    const { id, name, event, reason, origin, missing, insertId } = call;
    return {
      key: unrecordedKey(id),
      at: call.at,
      kind: "not-recorded",
      name: event || `${name}()`,
      properties: {},
      summary: missing.length ? missing.join(", ") : reason,
      person: "",
      sentAs: "",
      flushes: [],
      state: "",
      sources: origin ? [[origin, ""]] : [],
      during: call.during || "outside a request",
      insertId,
      device: "",
      lag: 0,
      marks: missing.length ? leftOutMarks(call) : [{ tone: "warning", text: insertId || !origin ? "not sent" : "not recorded" }],
      problem: missing.length ? "" : reason,
      remarks: [],
      undeclared: "",
      leftOut: leftOutOf(call),
      duplicateOf: null,
      sections: event ? [{ title: "Call", values: { [name]: event } }] : [],
      record: { ...call },
      endpoint: "",
      agent: ""
    };
  }
  function isLost({ kind, problem, state }) {
    return kind === "not-arrived" && (Boolean(problem) || state === "dropped");
  }
  var NO_PERSON = {
    event: "nobody",
    update: "nobody",
    "not-arrived": "not known yet",
    "not-recorded": "not known"
  };
  function noPerson(entry) {
    return isLost(entry) ? "not known" : NO_PERSON[entry.kind];
  }
  function strategyOf({ endpoint, flushes }) {
    return endpoint || flushes.length ? lastStrategy(flushes) : "";
  }
  function sourcesOf(flushes) {
    return flushes.flatMap((flush) => flush.sources);
  }
  function leftOutOf(partly) {
    return partly?.missing.length ? partly.reason : "";
  }
  function leftOutMarks(partly) {
    if (!partly?.missing.length) return [];
    const [first, ...others] = partly.missing;
    const more = others.length ? ` and ${others.length} more` : "";
    return [{ tone: "warning", text: `property left out: ${first}${more}` }];
  }
  function stateOf(flushes) {
    return flushes.at(-1)?.state ?? "";
  }
  function whyNotArrived({ failure, flushes }, state) {
    if (failure.startsWith("dropped:")) return { tone: "neutral", text: "dropped" };
    if (failure) return { tone: "error", text: "not delivered" };
    if (state === "dropped") return { tone: "error", text: "not sent" };
    if (lastStrategy(flushes) === "Delayed") return { tone: "neutral", text: "waits for a page" };
    if (state === "waiting") return { tone: "neutral", text: "waits for the browser" };
    return { tone: "neutral", text: "not arrived yet" };
  }
  var STATE_MARKS = {
    waiting: { tone: "pending", text: "to be acknowledged" },
    acknowledged: { tone: "good", text: "acknowledged" },
    sent: { tone: "neutral", text: "sent by the server" }
  };
  function marksOf(arrival) {
    const { problem, remarks, duplicateOf, flushes, undeclared } = arrival;
    const marks = [];
    const state = STATE_MARKS[stateOf(flushes)];
    if (problem) marks.push({ tone: "error", text: "refused" });
    if (state) marks.push(state);
    if (duplicateOf) marks.push({ tone: "neutral", text: "duplicate" });
    if (undeclared) marks.push({ tone: "warning", text: "not in the plan" });
    if (remarks.length) {
      const isCut = remarks.some((remark) => remark.includes("is cut"));
      marks.push({ tone: "warning", text: isCut ? "cut" : "note" });
    }
    return marks;
  }
  function sortProperties(properties, own) {
    const ownNames = own && new Set(own);
    const placeOf = (name) => {
      if (ownNames?.has(name)) return "own";
      if (name.startsWith("$") || ADDED_TO_EVENTS.has(name)) return "added";
      if (CAMPAIGN.test(name)) return "campaign";
      return ownNames ? "registered" : "own";
    };
    const placed = (place) => pick(properties, (name) => placeOf(name) === place);
    return {
      own: placed("own"),
      registered: placed("registered"),
      campaign: placed("campaign"),
      added: placed("added")
    };
  }
  function pick(values, wanted2) {
    return Object.fromEntries(Object.entries(values).filter(([name]) => wanted2(name)));
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
    return [
      { title: "Properties", values: properties.own },
      { title: "Super properties", values: properties.registered },
      { title: "Campaign", values: properties.campaign },
      { title: "Added by the library", values: properties.added, isLibrarys: true },
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
  async function fetchFeed(after, row, signal) {
    const query = new URLSearchParams({ after: String(after), wait: "1" });
    if (row) query.set("row", row);
    const response = await fetch(`${document.body.dataset.arrivals}?${query}`, { signal });
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

  // src/inspector/search.ts
  var known = /* @__PURE__ */ new WeakMap();
  function squeeze(text) {
    return text.normalize("NFC").toLowerCase().replace(/\s+/g, " ").trim();
  }
  function searchableText(entry) {
    let text = known.get(entry);
    if (text === void 0) {
      text = squeeze([...partsOf(entry)].join("\n"));
      known.set(entry, text);
    }
    return text;
  }
  function* partsOf(entry) {
    yield entry.name;
    yield entry.summary;
    yield Object.entries(entry.properties).map(([name, value]) => `${name}: ${fullText(value)}`).join(" · ");
    yield clock(entry.at);
    yield entry.person ? `${entry.person} ${shortPerson(entry.person)}` : noPerson(entry);
    yield entry.device;
    yield entry.agent;
    yield `/${entry.endpoint} +${duration(entry.lag)}`;
    yield entry.problem;
    yield entry.leftOut;
    yield entry.during;
    yield* entry.remarks;
    yield* entry.marks.map((mark) => mark.text);
    for (const { title, values } of entry.sections) {
      yield title;
      for (const [name, value] of Object.entries(values)) {
        yield `${name}: ${fullText(value)}`;
        yield `${name} ${fullText(value)}`;
      }
    }
    for (const [place, name] of entry.sources) yield `${place} in ${name}`;
    for (const { strategy, declined, during, became } of entry.flushes) {
      yield `${strategy} ${STRATEGIES[strategy] ?? ""}`;
      yield during;
      yield became;
      for (const [name, reason] of Object.entries(declined)) yield `${name} ${reason}`;
    }
    yield JSON.stringify(entry.record, null, 1);
    yield JSON.stringify(entry.record);
  }

  // src/inspector/filters.ts
  var LIT_FOR = 600;
  var KINDS = {
    event: ({ kind }) => kind === "event",
    update: ({ kind }) => kind === "update",
    waiting: (entry) => entry.kind === "not-arrived" && !isLost(entry),
    acknowledged: ({ state }) => state === "acknowledged",
    sent: ({ state }) => state === "sent",
    lost: isLost,
    refused: ({ kind, problem }) => (kind === "event" || kind === "update") && Boolean(problem),
    "not-recorded": ({ kind, leftOut }) => kind === "not-recorded" && !leftOut,
    "left-out": ({ leftOut }) => Boolean(leftOut),
    changed: ({ remarks }) => remarks.length > 0,
    duplicate: ({ duplicateOf }) => Boolean(duplicateOf)
  };
  var NAMES = ["strategy", "kind", "person", "text"];
  var Filters = class {
    #rows;
    #form = byId("filters");
    #fields = this.#form.elements;
    /** By the strategy's name; "" is all of them. */
    #buttons = /* @__PURE__ */ new Map();
    #strategy = "";
    constructor(rows2) {
      this.#rows = rows2;
      const strategies = {
        "": "everything",
        ...STRATEGIES,
        [OTHER]: "not recorded by this app"
      };
      for (const [name, hint] of Object.entries(strategies)) this.#addButton(name, hint);
      this.#form.addEventListener("input", () => this.#change());
      this.#form.addEventListener("submit", (event) => event.preventDefault());
      byId("unfilter").addEventListener("click", () => this.#reset());
      addEventListener("popstate", () => this.#read());
      this.#read();
    }
    /** Show the rows that match, and hide the others. */
    apply() {
      let shown = 0;
      for (const { node, entry } of this.#rows) {
        node.hidden = entry.key !== this.#rows.pinned && !this.#matches(entry);
        if (!node.hidden) shown += 1;
      }
      this.#drawCounts();
      byId("empty").hidden = this.#rows.size > 0;
      byId("unmatched").hidden = this.#rows.size === 0 || shown > 0;
    }
    /** Offer the people in the rows, and who is chosen. */
    offerPeople() {
      const select = this.#fields.person;
      const chosen = select.value;
      const people = [.../* @__PURE__ */ new Set([chosen, ...[...this.#rows].map(({ entry }) => entry.person)])].filter(Boolean).sort();
      const offered = [...select.options].slice(1).map((option) => option.value);
      if (people.join("\n") === offered.join("\n")) return;
      select.length = 1;
      for (const person of people) select.add(new Option(shortPerson(person), person));
      select.value = chosen;
    }
    /** Show everything of a person, and nothing else. */
    showPerson(person) {
      history.pushState(null, "", addressOfPerson(person));
      this.#read();
      scrollTo({ top: 0 });
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
    /** Take what is chosen from the page's address. */
    #read() {
      const query = filtersInAddress();
      const { text, kind, person } = this.#fields;
      const wanted2 = query.get("person") ?? "";
      if (wanted2 && ![...person.options].some((option) => option.value === wanted2))
        person.add(new Option(shortPerson(wanted2), wanted2));
      text.value = query.get("text") ?? "";
      kind.value = query.get("kind") ?? "";
      if (kind.selectedIndex < 0) kind.value = "";
      person.value = wanted2;
      this.#strategy = query.get("strategy") ?? "";
      this.#rows.pinned = "";
      this.apply();
    }
    #change() {
      const { text, kind, person } = this.#fields;
      const chosen = {
        strategy: this.#strategy,
        kind: kind.value,
        person: person.value,
        text: text.value.trim()
      };
      const query = new URLSearchParams();
      for (const name of NAMES) if (chosen[name]) query.set(name, chosen[name]);
      setFilters(query);
      this.#rows.pinned = "";
      this.apply();
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
        this.#change();
      });
      this.#buttons.set(name, { button, count, level });
      byId("channels").append(button);
    }
    #drawCounts() {
      const counts = /* @__PURE__ */ new Map();
      for (const { entry } of this.#rows) {
        const name = strategyOf(entry);
        counts.set(name, (counts.get(name) || 0) + 1);
      }
      counts.set("", this.#rows.size);
      for (const [name, { button, count, level }] of this.#buttons) {
        const number = counts.get(name) || 0;
        count.textContent = String(number);
        level.style.setProperty("--level", String(number / (this.#rows.size || 1)));
        button.setAttribute("aria-pressed", String(this.#strategy === name));
      }
    }
    #matches(entry) {
      const { text, kind, person } = this.#fields;
      const wanted2 = squeeze(text.value);
      return (!this.#strategy || strategyOf(entry) === this.#strategy) && // An address may have the device of somebody who has signed in since.
      (!person.value || entry.person === person.value || entry.sentAs === person.value) && (!kind.value || KINDS[kind.value](entry)) && (!wanted2 || searchableText(entry).includes(wanted2));
    }
    #reset() {
      this.#form.reset();
      this.#strategy = "";
      this.#change();
    }
  };

  // src/inspector/details.ts
  var COPIED_FOR = 1500;
  var PROBLEMS = {
    event: { tone: "error", title: "Mixpanel would refuse this" },
    update: { tone: "error", title: "Mixpanel would refuse this" },
    "not-arrived": { tone: "error", title: "Not delivered" },
    "not-recorded": { tone: "warning", title: "Not recorded" }
  };
  function drawDetails(entry, links) {
    const values = entry.sections.filter((section) => Object.keys(section.values).length).map(drawSection);
    return element(
      "div",
      { class: "inside" },
      element("div", { class: "values" }, ...values),
      element(
        "div",
        { class: "side" },
        ...drawNotices(entry, links),
        ...drawSources(entry),
        drawFlushes(entry),
        drawFacts(entry, links)
      )
    );
  }
  function drawNotices(entry, links) {
    const notices = [];
    if (entry.problem) {
      const { tone, title } = PROBLEMS[entry.kind];
      notices.push(drawNotice(tone, title, [entry.problem]));
    }
    if (entry.remarks.length) {
      notices.push(drawNotice("warning", "Mixpanel would change this", entry.remarks));
    }
    if (entry.undeclared) {
      notices.push(drawNotice("warning", "The app has not declared this", [entry.undeclared]));
    }
    if (entry.leftOut) {
      notices.push(drawNotice("warning", "Left out when it was recorded", [entry.leftOut]));
    }
    if (entry.duplicateOf) notices.push(drawDuplicate(arrivalKey(entry.duplicateOf), links));
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
  function drawDuplicate(first, links) {
    const notice = drawNotice("neutral", "Mixpanel would count this once", [
      "An event of the same name, person, time and $insert_id arrived before."
    ]);
    if (links.has(first))
      notice.append(drawLink("Go to the first", `#${first}`, () => links.showRow(first)));
    return notice;
  }
  function drawLink(text, address, click) {
    const link = element("a", { href: address }, text);
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      click();
    });
    return link;
  }
  function drawCopyButton(label, text) {
    if (!navigator.clipboard) return "";
    const button = element("button", { type: "button", class: "small" }, label);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
      setTimeout(() => button.textContent = label, COPIED_FOR);
    });
    return button;
  }
  function drawSources({ sources }) {
    if (!sources.length) return [];
    const lines = sources.map(
      ([place, name], index) => element(
        "li",
        {},
        index ? "called from " : "",
        element("code", {}, place),
        name && ` in ${name}`
      )
    );
    return [
      element(
        "section",
        { class: "sources" },
        element("h3", {}, "Where it was called"),
        element("ol", {}, ...lines),
        drawCopyButton("Copy file and line", () => sources[0][0])
      )
    ];
  }
  function drawFlushes({ at, during, endpoint, flushes }) {
    if (during) return drawCalled(during, at);
    const section = element("section", {}, element("h3", {}, "How it got here"));
    if (!flushes.length) {
      section.append(
        element(
          "p",
          { class: "quiet" },
          endpoint ? "This app didn't record it: it comes from the page's own script, the browser library itself or another program." : "It was dropped before any strategy was asked."
        )
      );
    }
    for (const flush of flushes) section.append(...drawFlush(flush));
    return section;
  }
  function drawCalled(during, at) {
    return element(
      "section",
      {},
      element("h3", {}, "When it was called"),
      drawMoment(during, at)
    );
  }
  function drawMoment(during, at) {
    return element(
      "p",
      { class: "during" },
      during || "outside a request",
      " ",
      element("time", {}, clock(at))
    );
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
      drawMoment(during, at),
      element("ol", { class: "chain" }, ...steps)
    ];
  }
  function drawFacts(entry, links) {
    const { person } = entry;
    const facts = Object.entries({
      Person: person,
      Endpoint: entry.endpoint && `/${entry.endpoint}`,
      Recorded: entry.lag > 0.05 ? `${duration(entry.lag)} before it arrived` : "",
      "Sent by": entry.agent
    }).filter(([, value]) => value);
    const everything = () => drawLink(
      "Everything of this person",
      addressOfPerson(person),
      () => links.showPerson(person)
    );
    return element(
      "section",
      {},
      facts.length ? element("h3", {}, entry.endpoint ? "Arrival" : "Call") : "",
      element(
        "dl",
        { class: "facts" },
        ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])
      ),
      element(
        "p",
        { class: "links" },
        person ? everything() : "",
        drawLink("Address of this row", `#${entry.key}`, () => links.showRow(entry.key)),
        drawCopyButton("Copy JSON", () => JSON.stringify(entry.record, null, 2))
      )
    );
  }
  function drawSection({ title, values, isLibrarys }) {
    const rows2 = Object.entries(values).map(
      ([name, value]) => element(
        "tr",
        {},
        element("th", { scope: "row" }, name),
        element("td", {}, ...drawValue(value))
      )
    );
    return element(
      "table",
      { class: isLibrarys ? "library" : "own" },
      element("caption", {}, title),
      ...rows2
    );
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
      drawPerson(entry.person, noPerson(entry)),
      drawStrategies(entry),
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
  function drawStrategies(entry) {
    const { flushes } = entry;
    const last = strategyOf(entry);
    if (!last) return element("span", { class: "strategy" });
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
    /** The key of a row that is shown also if it doesn't match; empty if there is none. */
    pinned = "";
    #links;
    /** @param showPerson Show everything of a person. */
    constructor(showPerson) {
      this.#links = {
        showPerson,
        has: (key) => this.#rows.has(key),
        showRow: (key) => this.show(key)
      };
    }
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
      const known2 = this.#rows.get(entry.key);
      if (known2) {
        known2.entry = entry;
        this.#draw(known2);
        return false;
      }
      const row = { entry, node: element("li", { id: entry.key }), open: false };
      this.#rows.set(entry.key, row);
      this.#draw(row);
      this.#insert(row);
      return true;
    }
    remove(key) {
      this.#rows.get(key)?.node.remove();
      this.#rows.delete(key);
    }
    /** Let an arrival take the place of the call that it comes from. */
    replace(call, arrival) {
      const row = this.#rows.get(call);
      this.remove(call);
      if (row?.open) this.#open(arrival);
      if (keyInAddress() === call) setKey(arrival);
    }
    clear() {
      for (const key of [...this.#rows.keys()]) this.remove(key);
    }
    /** Remove the rows that came first until there are no more than there may be, but not
     * the one that the page's address is of. */
    trim() {
      for (const key of this.#rows.keys()) {
        if (this.#rows.size <= MAX_ROWS) return;
        if (key !== keyInAddress()) this.remove(key);
      }
    }
    /** Open a row and go there, also if it doesn't match; tell whether it is here. */
    show(key) {
      const node = this.#open(key);
      if (!node) return false;
      this.pinned = key;
      node.hidden = false;
      setKey(key);
      node.querySelector("summary").focus({ preventScroll: true });
      node.scrollIntoView({ block: "start" });
      return true;
    }
    #open(key) {
      const row = this.#rows.get(key);
      if (!row) return void 0;
      row.open = true;
      this.#draw(row);
      return row.node;
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
      const hadFocus = row.node.contains(document.activeElement);
      const details = element("details", { class: `row ${entry.kind}` }, drawSummary(entry));
      details.classList.toggle(
        "refused",
        Boolean(entry.problem) && entry.kind !== "not-recorded"
      );
      details.classList.toggle("duplicate", Boolean(entry.duplicateOf));
      details.open = row.open;
      let drawn = false;
      const drawInside = () => {
        if (!drawn) details.append(drawDetails(entry, this.#links));
        drawn = true;
      };
      details.addEventListener("toggle", () => {
        if (row.open === details.open) return;
        row.open = details.open;
        if (row.open) {
          drawInside();
          setKey(entry.key);
        } else if (keyInAddress() === entry.key) {
          setKey("");
        }
      });
      if (row.open) drawInside();
      row.node.replaceChildren(details);
      if (hadFocus) details.querySelector("summary").focus({ preventScroll: true });
    }
  };
  function timeOf(node) {
    return Number(node.dataset.at);
  }

  // src/inspector/main.ts
  var MIN_INTERVAL = 1e3;
  var CROWD_INTERVAL = 150;
  var rows = new Rows((person) => filters.showPerson(person));
  var filters = new Filters(rows);
  var unrecorded = /* @__PURE__ */ new Map();
  var revision = 0;
  var cleared = 0;
  var paused = false;
  var wanted = keyInAddress();
  var timer;
  var question = new AbortController();
  function applyFeed(feed) {
    const isFirst = revision === 0;
    const isCleared = feed.cleared !== cleared || feed.after < revision;
    revision = feed.after;
    cleared = feed.cleared;
    if (isCleared) rows.clear();
    const fresh = entriesOf(feed).filter((entry) => rows.put(entry)).filter((entry) => entry.endpoint);
    for (const call of feed.calls)
      if (call.arrival !== null) rows.replace(callKey(call.id), arrivalKey(call.arrival));
    for (const { entry } of [...rows]) {
      const partly = unrecorded.get(entry.insertId);
      if (partly && (entry.kind === "event" || entry.leftOut && entry.flushes.length))
        rows.remove(unrecordedKey(partly.id));
    }
    rows.trim();
    if (feed.calls.length || feed.arrivals.length || feed.unrecorded.length || isCleared) {
      filters.offerPeople();
      filters.apply();
    }
    if (!isFirst && fresh.length) announce(fresh);
    if (isFirst) showWanted();
  }
  function showWanted() {
    wanted = keyInAddress();
    byId("gone").hidden = !wanted || rows.show(wanted);
  }
  function entriesOf(feed) {
    for (const call of feed.unrecorded)
      if (call.insertId) unrecorded.set(call.insertId, call);
    return [
      ...feed.unrecorded.map(entryOfUnrecorded),
      ...feed.arrivals.map(
        (arrival) => entryOfArrival(arrival, unrecorded.get(arrivalInsertId(arrival)))
      ),
      ...feed.calls.filter((call) => call.arrival === null).map((call) => entryOfCall(call, unrecorded.get(callInsertId(call))))
    ].sort((one, other) => one.at - other.at);
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
    question.abort();
    if (paused || document.hidden) return;
    question = new AbortController();
    const { signal } = question;
    const began = performance.now();
    const before = revision;
    try {
      const feed = await fetchFeed(before, before ? "" : wanted, signal);
      if (signal.aborted) return;
      applyFeed(feed);
      showState("live", "Live");
    } catch {
      if (signal.aborted) return;
      showState("offline", "No answer, trying again");
    }
    const rest = began + MIN_INTERVAL - performance.now();
    timer = setTimeout(poll, revision === before ? rest : CROWD_INTERVAL);
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
  addEventListener("hashchange", () => {
    if (keyInAddress() && !rows.get(keyInAddress())) location.reload();
    else showWanted();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      filters.focusText();
    }
  });
  void poll();
})();
