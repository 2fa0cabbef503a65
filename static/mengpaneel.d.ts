/** The script of Flask-Mengpaneel: `window.Mengpaneel`, or the module's export. */
export interface MengpaneelScript {
  /**
   * Make the calls on this instance of Mixpanel's library: one that is bundled with
   * the page's own code, or a named one. Call it after `mixpanel.init()`.
   */
  use(mixpanel: MixpanelInstance): void;

  /**
   * Say on a page that was made without the visitor's consent that they have given it:
   * the library is loaded, and makes what the page has called meanwhile. `false` makes
   * what waits never be made.
   */
  consent(isGiven: boolean): void;
}

/** What is needed of an instance: `mixpanel-browser` 2.50 or later has it all. */
export interface MixpanelInstance {
  identify(id?: string): unknown;
  track(event: string, properties?: object): unknown;
}

/** `[[name, ...], [argument, ...]]`; a chained call has further pairs. */
export type Call = Array<string[] | unknown[]>;

export const Mengpaneel: MengpaneelScript;
export default Mengpaneel;

declare global {
  interface Window {
    Mengpaneel: MengpaneelScript;
  }
}
