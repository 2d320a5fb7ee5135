// Builds the pages that the server serves: pages/NAME/index.html and all that it needs, into
// pages/dist, compressed. The server's build embeds what it finds there.
//
//   index file, one line for each page's file:  ROUTE CONTENT-TYPE FILE

import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const PAGES = { demo: "/", admin: "/ws/admin" };
const TYPES = {
  ".html": "text/html;charset=utf-8",
  ".js": "text/javascript;charset=utf-8",
  ".css": "text/css;charset=utf-8",
  ".svg": "image/svg+xml",
};

const target = here("pages/dist");
const scratch = here("pages/dist/.scratch");
rmSync(target, { recursive: true, force: true });
mkdirSync(scratch, { recursive: true });

const rows = [];
function add(route, file, bytes) {
  const type = TYPES[extname(file)];
  if (!type) throw new Error(`${file}: no content type`);
  // Level 9, no name and no time in the head: the same bytes each time.
  writeFileSync(join(target, `${file}.gz`), gzipSync(bytes, { level: 9 }));
  rows.push(`${route} ${type} ${file}.gz`);
}

for (const name of readdirSync(here("pages")).filter((name) => name in PAGES)) {
  await build({
    configFile: false,
    logLevel: "warn",
    root: here(`pages/${name}`),
    base: "/",
    resolve: {
      alias: {
        "belfry-client/react": here("src/react/index.ts"),
        "belfry-client/store": here("src/store/index.ts"),
        "belfry-client": here("src/core/index.ts"),
      },
    },
    build: {
      outDir: join(scratch, name),
      emptyOutDir: true,
      target: "es2022",
      assetsInlineLimit: 0,
      modulePreload: false,
      rollupOptions: {
        output: {
          entryFileNames: `ws-assets/${name}-[hash].js`,
          chunkFileNames: `ws-assets/${name}-[hash].js`,
          assetFileNames: `ws-assets/${name}-[hash][extname]`,
        },
      },
    },
  });
  add(PAGES[name], `${name}.html`, readFileSync(join(scratch, name, "index.html")));
  for (const file of readdirSync(join(scratch, name, "ws-assets")).sort())
    add(`/ws-assets/${file}`, file, readFileSync(join(scratch, name, "ws-assets", file)));
}
rmSync(scratch, { recursive: true });
writeFileSync(join(target, "index"), rows.map((row) => `${row}\n`).join(""));
