import Mengpaneel, { type Call } from "../../static/mengpaneel";
import mixpanel from "mixpanel-browser";

Mengpaneel.use(mixpanel);
window.Mengpaneel.use(mixpanel);

export const call: Call = [["track"], ["Sign In", { Plan: "pro" }]];

// @ts-expect-error An instance is needed.
Mengpaneel.use();
