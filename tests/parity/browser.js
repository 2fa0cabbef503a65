/* Visit pages with the real mixpanel-browser, and tell what it sends.

   node browser.js <folder of mixpanel-browser> < visits.json > sent.json

   A visit has what the library reads of a browser: userAgent, vendor, presto, url,
   referrer, title. What it sends is caught where it leaves: in XMLHttpRequest and in
   document.cookie. Everything between is the library's own, unchanged. */
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

const file = path.join(process.argv[2], 'dist', 'mixpanel-core.cjs.js');

// Compiled once and run anew for each visit: it reads its browser when it starts.
const start = vm.compileFunction(fs.readFileSync(file, 'utf8'), [
  'module', 'exports', 'window', 'XMLHttpRequest', 'setTimeout',
]);

function page(visit, sent) {
  const location = new URL(visit.url);
  const jar = new Map();
  const document = {
    URL: location.href,
    location,
    referrer: visit.referrer,
    title: visit.title,
    documentElement: {},
    readyState: 'complete',
    addEventListener() {},
    get cookie() {
      return [...jar].map((pair) => pair.join('=')).join('; ');
    },
    set cookie(text) {
      const [pair, ...attributes] = text.split('; ');
      const equals = pair.indexOf('=');
      const name = pair.slice(0, equals);
      jar.set(name, pair.slice(equals + 1));
      if (name.startsWith('mp_')) sent.cookie = attributes;
    },
  };

  return {
    document,
    location,
    navigator: { userAgent: visit.userAgent, vendor: visit.vendor, onLine: true },
    opera: visit.presto ? {} : undefined,
    screen: { width: 1280, height: 720 },
    console: { log() {}, warn() {}, error() {} },
    crypto: globalThis.crypto,
    CustomEvent,
    addEventListener() {},
    removeEventListener() {},
    dispatchEvent() {},
  };
}

function visited(visit) {
  const sent = { events: [], url: new URL(visit.url).href };

  class XMLHttpRequest {
    withCredentials = false;
    open() {}
    setRequestHeader() {}
    send(body) {
      const text = decodeURIComponent(body.slice('data='.length));
      sent.events.push(JSON.parse(text));
    }
  }

  const window = page(visit, sent);
  window.XMLHttpRequest = XMLHttpRequest;
  const module = { exports: {} };
  start(module, module.exports, window, XMLHttpRequest, () => 0);
  const mixpanel = module.exports;
  mixpanel.init('TOKEN', {
    api_payload_format: 'json',
    batch_requests: false,
    error_reporter(message, error) {
      throw error || new Error(message);
    },
  });
  mixpanel._dom_loaded();
  mixpanel.track('Visit');
  mixpanel.track_pageview();
  return sent;
}

const visits = JSON.parse(fs.readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(visits.map(visited)));
