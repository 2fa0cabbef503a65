/** The script of Flask-Mengpaneel: `window.Mengpaneel`, or the module's export. */
export interface MengpaneelScript {
  /**
   * Make the calls on this instance of Mixpanel's library: one that is bundled with
   * the page's own code, or a named one. Call it after `mixpanel.init()`.
   */
  use(mixpanel: MixpanelInstance): void;
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
