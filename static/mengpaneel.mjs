/*! Flask-Mengpaneel, MIT */
import"./mengpaneel.js";var{Mengpaneel:n}=globalThis,e=n;export{n as Mengpaneel,e as default};
