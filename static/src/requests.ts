// The page's own requests: they announce that calls can be made here, and their
// responses carry them. Otherwise the page gets what it would get without us.

import { dataset, documentProperty, origin, originalFetch } from "./browser";
import { safely } from "./debug";
import { main, share } from "./instance";
import { blocked, page } from "./page";
import { enqueueCalls } from "./queue";

const CAPABLE = "X-Mengpaneel-Flush-Capable";

const SITE = origin + "/";

/** What tells the app that calls can be made here, of which project, and acknowledged. */
const announcement = () =>
  `true; ${page?.acks ? "ack; " : ""}project=${main!.config.token}${share()}`;

/** Whether a request is for the app, and calls of its response can be made. */
const isAnnounced = (address: string | URL) =>
  main &&
  address &&
  !blocked &&
  safely(() => {
    const url = new URL(address, documentProperty("baseURI")).href;
    return (
      url.startsWith(SITE) &&
      // The library's own, by way of the site.
      !url.startsWith(main!.config.api_host) &&
      !dataset.exclude
        ?.split(" ")
        .some((path) => path && url.startsWith(origin + path))
    );
  });

/** Make the calls of a response, before the code that asked for it goes on. */
const receive = (url: string, header: (name: string) => string | null) =>
  safely(() => {
    share();
    const text = url.startsWith(SITE) && header("X-Mengpaneel-Calls");
    const project = header("X-Mengpaneel-Project");
    if (text && (!project || project == main!.config.token))
      enqueueCalls({
        text,
        signature: header("X-Mengpaneel-Signature"),
        handover: header("X-Mengpaneel-Hand-Over"),
      });
  });

export const announceRequests = () => {
  window.fetch = async function (this: any, input: any, init?: any) {
    const isRequest = input instanceof Request;
    const headers =
      isAnnounced(isRequest ? input.url : input) &&
      safely(() => (isRequest ? input.headers : new Headers(init?.headers)));
    // Not what is fetched in advance, and may never be shown.
    if (!headers || headers.has("X-Sec-Purpose"))
      return originalFetch.apply(this, arguments as any);

    // A second argument would reset the referrer of a `Request`: its own headers have
    // ours, for as long as it takes. Other options are read through a proxy, so that
    // whatever the page passed is what the browser gets: 5 us of 15.
    const options = isRequest
      ? init
      : new Proxy(init || {}, {
          get: (target, name) => (name == "headers" ? headers : target[name]),
        });
    headers.set(CAPABLE, announcement());
    const answer = originalFetch.call(this, input, options);
    headers.delete(CAPABLE);
    const response = await answer;
    receive(response.url, (name) => response.headers.get(name));
    return response;
  };

  const { open } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (_: string, url: string | URL) {
    open.apply(this, arguments as any);
    if (isAnnounced(url)) {
      this.setRequestHeader(CAPABLE, announcement());
      // One for all requests of an object, so that none is added twice. Headers are
      // there with the first change of state after `send`.
      this.addEventListener("readystatechange", listen, { once: true });
    }
  };
};

function listen(this: XMLHttpRequest) {
  receive(this.responseURL, (name) => this.getResponseHeader(name));
}
