// memory.js: the second script, for a library that keeps what it knows of the visitor
// where the app doesn't see it, or that knows nothing yet. A cookie of ours shows the ids
// to the app, and brings what the app decides into the library: docs/front-ends.md, "What
// the library knows".

import { documentProperty, globalVariable } from "./browser";
import { safely } from "./debug";
import type { Library, PageData } from "./types";

/** What the library knows: names and values. */
type Known = Record<string, unknown>;

const IDS = ["distinct_id", "$device_id", "$user_id"];

/** The methods that say who it is, or whether they may be tracked. */
const METHODS = ["identify", "alias", "reset", "opt_in_tracking", "opt_out_tracking"];

/** Bytes of a cookie, of which browsers keep 4 KB with its name and attributes. */
const MOST = 3800;

const YEAR = 31_536_000;

/** @param name of a cookie, with what follows it. */
const valueOf = (name: string): string | undefined =>
  `; ${documentProperty("cookie")}`.split("; " + name)[1]?.split(";")[0];

const read = (text?: string): Known =>
  safely(() => JSON.parse(decodeURIComponent(text!.replace("!", "")))) || {};

const setCookie = (cookie: string) =>
  Reflect.set(Document.prototype, "cookie", cookie, document);

/** Delete a cookie, for whichever of the host's domains it is. */
const remove = (name: string) => {
  location.hostname.split(".").forEach((_, level, parts) => {
    const domain = parts.slice(level).join(".");
    // Of an address, or of all of `com`, there is none; Firefox would say so.
    if (/\..*[a-z]/.test(domain)) setCookie(`${name};path=/;max-age=0;domain=${domain}`);
  });
  setCookie(`${name};path=/;max-age=0`);
};

/**
 * Our cookie of a project.
 *
 * @param options of the library, some of which are for this cookie, too.
 */
const cookieOf = (token: string, options: PageData["config"]) => {
  const name = `mp_${token}_mengpaneel=`;
  const text = valueOf(name);
  const known = read(text);
  // It is about the cookie, and not of the visitor.
  delete known.passing;

  return {
    text,
    known,
    /** Whether the app has written it, and the library doesn't know that yet. */
    isDecided: text?.[0] == "!",
    /** @param age in seconds; without one it ends with the browser's session. */
    write: (value: string, age?: number) =>
      setCookie(
        `${name}${value};path=/` +
          (age === void 0 ? "" : ";max-age=" + age) +
          (options.cross_site_cookie ? ";SameSite=None" : "") +
          (options.cross_site_cookie || options.secure_cookie ? ";secure" : ""),
      ),
  };
};

const written = (known: Known) => encodeURIComponent(JSON.stringify(known));

/** Whether the library has known the visitor before, as far as one sees that here. */
let wasKnown = false;

/**
 * Bring what the app has decided into the library's storage, before the library looks
 * there: what it tracks by itself when it starts is of the right person, too.
 */
const prepare = ({ token, config, refused, unasked }: PageData) => {
  const { known, isDecided, write } = cookieOf(token, config);
  const key = `mp_${config.persistence_name || token + "_mixpanel"}`;
  wasKnown = key in localStorage;
  if (config.disable_persistence || !isDecided || refused || unasked) return;
  const kept: Known = JSON.parse(localStorage[key] || "{}");
  const isSame = kept.$device_id == known.$device_id;
  localStorage[key] = JSON.stringify({ ...(isSame && kept), ...known });
  write(written(known), YEAR);
};

/** Instances whose methods tell when they were called. */
const watched = new Set<Library>();

/** Whether the calls of the library's methods are our own. */
let isBusy = false;

/** The data of the latest page. */
let page: PageData | undefined;

/** The page's library, once it is in use. */
let library: Library | undefined;

/**
 * Bring what the app has decided into the library, and show the app what the library
 * knows then.
 *
 * @return what is added to the announcement of a request: who it is, where the browser
 *   keeps no cookies.
 */
const share = (mixpanel: Library, latest: PageData | undefined) => {
  page = latest;
  // One of the page's own may have been there before there was anybody to tell.
  if (!library) kept = read(valueOf(cookieNameOf(mixpanel)));
  library = mixpanel;
  if (!watched.has(mixpanel)) watch(mixpanel);
  early.splice(0).forEach(follow);
  if (isBusy) return "";
  isBusy = true;
  const said = safely(() => exchange(mixpanel));
  isBusy = false;
  return said || "";
};

const watch = (mixpanel: Library) => {
  watched.add(mixpanel);

  for (const name of METHODS) {
    const method = mixpanel[name] as any;
    mixpanel[name] = function (...args: unknown[]) {
      const result = method.apply(this, args);
      share(mixpanel, page);
      return result;
    };
  }
};

/**
 * Let the library know what the app has written where this library doesn't look: its
 * cookie has another name. From now on our cookie shows the app who it is.
 */
const takeUp = (mixpanel: Library, name: string, text: string) => {
  const known = read(text);
  // Whom the library knows by name isn't the new visitor for whom the app takes them.
  if (known.$user_id || !mixpanel.get_property("$user_id")) mixpanel.register(known);

  remove(name);
};

/** The name of the cookie in which a library looks, with what follows it. */
const cookieNameOf = ({ config }: Library) =>
  `mp_${config.persistence_name || config.token + "_mixpanel"}=`;

/** Whether the library keeps what it knows, and not in that cookie. */
const isElsewhere = ({ config }: Library) =>
  config.persistence == "localStorage" && !config.disable_persistence;

/** The devices of which the browser has told. */
const devices = new Set<unknown>();

/** What was in the library's cookie last, but for a device that the app has begun. */
let kept: Known = {};

/**
 * Whether the app has begun the device in a cookie, or the library has taken up such a
 * one: then the cookie begins with it.
 */
const isBegun = (text?: string) => text?.startsWith("%7B%22%24device_id");

/** What the browser has told before the library was in use. */
const early: CookieChangeEvent[] = [];

/**
 * Let the library go on with the device that the app begins on a new visitor's first page.
 *
 * What the page asks for before the library is there comes to the app without a cookie,
 * and the answer brings one. If that is in the hundredths of a second in which the library
 * starts, it has looked for its cookie already, and writes over it; if it is later, the
 * answer writes over what the library knows. Browsers tell of each value all the same,
 * afterwards and in order:
 * https://cookiestore.spec.whatwg.org/#the-cookiechangeevent-interface
 */
const follow = (event: CookieChangeEvent) => {
  if (!library) return early.push(event);
  const own = cookieNameOf(library);

  for (const { name } of event.deleted) if (name + "=" == own) kept = {};

  for (const { name, value } of event.changed) {
    if (name + "=" != own) continue;
    const known = read(value);
    // What the library has taken up it writes itself, each time.
    const isNew = isBegun(value) && !devices.has(known.$device_id);
    devices.add(known.$device_id);
    if (!isNew) {
      kept = known;
      continue;
    }
    goOn(library, known);
    share(library, page);
  }
};

const goOn = (mixpanel: Library, known: Known) => {
  // The answer was on its way when they opted out.
  if (mixpanel.has_opted_out_tracking()) return remove(cookieNameOf(mixpanel));
  const { $device_id, distinct_id, $user_id, __timers } = known as any;
  const get = (name: string) => mixpanel.get_property(name) as any;

  // It isn't by this cookie that they are known. The app would take it for what the library
  // knows, as would the library on the next page. What passes with the page is the next
  // page's already.
  if (isElsewhere(mixpanel)) {
    remove(cookieNameOf(mixpanel));
    if (wasKnown) return;
  } else if (mixpanel.config.disable_persistence && get("$user_id")) return;

  const some = (all: Known, isOne: (name: string) => unknown): Known =>
    Object.fromEntries(Object.entries(all).filter(([name]) => isOne(name)));

  // It has written over what the library knew; what the page has said since then is newer.
  const lost = isBegun(valueOf(cookieNameOf(mixpanel)))
    ? some(kept, (name) => JSON.stringify(get(name)) == JSON.stringify(known[name]))
    : {};
  const now = (name: string) => lost[name] ?? get(name);

  // Whom the page has identified meanwhile stays who it is, with one more device. All at
  // once, as other tabs are told the same, and what one of them writes another reads.
  const user = now("$user_id");
  mixpanel.register({
    ...some(known, (name) => now(name) === void 0),
    ...lost,
    $device_id,
    ...((!user || user == $user_id) && { distinct_id, $user_id }),
    ...(__timers && { __timers: { ...__timers, ...now("__timers") } }),
  });
};

/** The pages whose ids the library has taken up. */
const begun = new Set<unknown>();

const exchange = (mixpanel: Library) => {
  const { disable_persistence, token } = mixpanel.config;
  const { text, known, isDecided, write } = cookieOf(token, mixpanel.config);
  const seen = page?.cookie && valueOf(page.cookie);
  const isShown =
    seen !== void 0 && page!.cookie == cookieNameOf(mixpanel) && !isElsewhere(mixpanel);

  // What the app sees anyhow, and what a visitor doesn't want to be kept.
  if (isShown || mixpanel.has_opted_out_tracking()) {
    if (text !== void 0) write("", 0);
    return;
  }

  if (seen) takeUp(mixpanel, page!.cookie!, seen);

  if (isDecided) {
    // Somebody else: nothing of what the library knows is theirs.
    if (known.$device_id && known.$device_id != mixpanel.get_property("$device_id"))
      mixpanel.reset();
    mixpanel.register(known);
  }

  const show = (names: string[]) => {
    const shown: Known = { passing: disable_persistence || void 0 };
    for (const name of names) shown[name] = mixpanel.get_property(name);
    return written(shown);
  };

  let value = show([...new Set([...IDS, "__timers", ...Object.keys(known)])]);
  if (value.length > MOST) value = show(IDS);
  if (value == text) return;
  write(value, disable_persistence ? void 0 : YEAR);
  if (cookieOf(token, {}).text !== void 0) return;

  // The browser takes no cookie, so the library has found none either.
  if (page?.ids && !begun.has(page.ids)) {
    begun.add(page.ids);
    mixpanel.register(page.ids);
  }
  return "; visitor=" + show(IDS);
};

const mengpaneel = globalVariable("Mengpaneel") || ((window as any).Mengpaneel = {});

// A page may ask for it twice: before the library is there, and for one that turns out to
// keep what it knows elsewhere.
if (!mengpaneel.share) {
  mengpaneel.share = share;
  safely(() => cookieStore.addEventListener("change", follow));
  safely(() =>
    prepare(JSON.parse((documentProperty("scripts") as any).mengpaneel.text)),
  );
}
