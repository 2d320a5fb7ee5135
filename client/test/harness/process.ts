// Child processes of the tests: each is ended by its own pid, whatever happens.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const alive = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export function start(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): ChildProcess & { log: () => string } {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env });
  let log = "";
  const keep = (data: Buffer) => void (log = (log + data.toString()).slice(-200_000));
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  alive.add(child);
  child.once("exit", () => alive.delete(child));
  child.once("error", (error) => keep(Buffer.from(String(error))));
  return Object.assign(child, { log: () => log });
}

export async function end(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await ended;
  clearTimeout(timer);
}

/** Until check gives something. */
export async function eventually<T>(
  check: () => T | Promise<T>,
  what: string,
  seconds = 20,
): Promise<NonNullable<T>> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A directory that others may enter: workers may run as another user. */
export function makeDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), "belfry-client-"));
  chmodSync(path, 0o755);
  return path;
}

export function removeDirectory(path: string): void {
  rmSync(path, { recursive: true, force: true });
}
