// mengpaneel.mjs: the same script, so that a page that has both has one.

import "../mengpaneel.js";

export const { Mengpaneel } = globalThis as unknown as Window;
export default Mengpaneel;
