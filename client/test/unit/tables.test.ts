import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { CLOSES, EVENTS } from "belfry-client";

it("src/core/tables.ts is what the server's tables make", () => {
  const script = fileURLToPath(new URL("../../scripts/generate-tables.mjs", import.meta.url));
  execFileSync(process.execPath, [script, "--check"], { stdio: "inherit" });
  expect(Object.keys(EVENTS)).toHaveLength(19);
  expect(CLOSES[4003]?.advice).toBe("stop");
});
