// Make what is served from static/src: `npm run build`. With `--check`, write nothing,
// and fail where the files that are here differ from what the sources give.

import * as fs from "node:fs";
import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** The files that are served, and what each is made from. */
const FILES = {
  // For developers, who may read it: its size doesn't matter.
  "inspector.js": {
    source: "src/inspector/main.ts",
    format: "iife",
    minify: false,
    target: "es2022",
    banner: { js: "/*! Flask-Mengpaneel inspector, MIT licence */" },
  },
  "mengpaneel.js": {
    source: "src/main.ts",
    format: "iife",
    // The server says where it is.
    sourcemap: "external",
    // What nobody else sees.
    mangleProps: /^(handOver|signed|items|done|openCount|wire)$/,
  },
  "memory.js": { source: "src/memory.ts", format: "iife" },
  "mengpaneel.mjs": { source: "src/module.ts", format: "esm" },
};

/** Return the contents of a file, and of its source map, by their paths. */
const make = async ([name, { source, ...options }]) => {
  const { outputFiles } = await build({
    absWorkingDir: folder,
    entryPoints: [source],
    outfile: name,
    bundle: true,
    minify: true,
    // What browsers have that have `Object.hasOwn`, which the script needs.
    target: "es2022",
    charset: "utf8",
    // The module is a few words around the script itself.
    external: ["./mengpaneel.js"],
    banner: { js: "/*! Flask-Mengpaneel, MIT */" },
    tsconfigRaw: {},
    write: false,
    ...options,
  });
  return outputFiles;
};

const files = (await Promise.all(Object.entries(FILES).map(make))).flat();

if (process.argv.includes("--check")) {
  const stale = files.filter(
    ({ path, text }) => !fs.existsSync(path) || fs.readFileSync(path, "utf8") !== text,
  );
  for (const file of stale)
    console.error(`${path.relative("", file.path)} isn't what static/src gives.`);
  if (stale.length) console.error("Run `npm run build`, and commit what it makes.");
  process.exitCode = stale.length ? 1 : 0;
} else {
  for (const { path, contents } of files) fs.writeFileSync(path, contents);
}
