import "./mengpaneel.js";

export const { Mengpaneel } = globalThis;
export default Mengpaneel;
