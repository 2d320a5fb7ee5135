// Builds the package and runs its tests. The pages have a configuration of their own: pages/.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const alias = {
  "belfry-client/react": here("src/react/index.ts"),
  "belfry-client/store": here("src/store/index.ts"),
  "belfry-client": here("src/core/index.ts"),
};

/** Tests that start servers and browsers take their time on a busy machine. */
const patient = { testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  build: {
    lib: {
      entry: {
        index: here("src/core/index.ts"),
        react: here("src/react/index.ts"),
        store: here("src/store/index.ts"),
      },
      formats: ["es"],
    },
    target: "es2022",
    minify: false,
    sourcemap: true,
    rollupOptions: { external: [/^belfry-client/, /^react/, /^zustand/] },
  },
  resolve: { alias },
  test: {
    projects: [
      { resolve: { alias }, test: { name: "unit", include: ["test/unit/**/*.test.{ts,tsx}"] } },
      {
        resolve: { alias },
        test: { name: "server", include: ["test/server/**/*.test.ts"], ...patient },
      },
      {
        resolve: { alias },
        test: { name: "browser", include: ["test/browser/**/*.test.ts"], ...patient },
      },
    ],
  },
});
