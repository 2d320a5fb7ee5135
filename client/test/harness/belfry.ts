// The real belfryd with a configuration of its own; tokens for it.

import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { end, eventually, makeDirectory, removeDirectory, start } from "./process.js";
import type { Redis } from "./redis.js";

const SECRET = "a secret of the client's tests that is long enough for HS256";
const run = promisify(execFile);

export function program(name: string): string {
  const found =
    process.env[name.toUpperCase()] ??
    fileURLToPath(new URL(`../../../build/${name}`, import.meta.url));
  if (!existsSync(found)) throw new Error(`${found} is not there: ./quickstart build`);
  return found;
}

export interface Status {
  pid: number;
  state: string;
  listen: string[];
  generation: number;
  workers: { slot: number; pid: number; generation: number; state: string; connections: { websockets: number } }[];
}

const base64url = (value: string | Buffer) => Buffer.from(value).toString("base64url");

/** ttl in seconds, down to fractions. */
export function makeToken(user: string, { ttl = 600, admin = false } = {}): string {
  const now = Date.now() / 1000;
  const claims = { sub: user, iat: now, exp: now + ttl, jti: Math.random().toString(36) };
  const head = base64url(JSON.stringify({ alg: "HS256", typ: "JWT" }));
  const body = base64url(JSON.stringify(admin ? { ...claims, role: "admin" } : claims));
  const signature = createHmac("sha256", SECRET).update(`${head}.${body}`).digest();
  return `${head}.${body}.${base64url(signature)}`;
}

export class Belfry {
  readonly directory = makeDirectory();
  readonly config = join(this.directory, "belfry.conf");
  address = "";
  #child: ReturnType<typeof start> | null = null;

  static async start(redis: Redis, options: Record<string, string> = {}): Promise<Belfry> {
    const server = new Belfry();
    const secret = join(server.directory, "secret");
    writeFileSync(secret, SECRET + "\n", { mode: 0o600 });
    const all: Record<string, string> = {
      listen: `127.0.0.1:${await freePort()}`,
      workers: "2",
      "control-socket": join(server.directory, "control.sock"),
      "jwt-secret-file": secret,
      "redis-url": redis.url,
      "redis-probe-interval": "1s",
      ...options,
    };
    const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(server.config, lines.join(""));
    await server.begin();
    return server;
  }

  get url(): string {
    return `ws://${this.address}/ws`;
  }
  get http(): string {
    return `http://${this.address}`;
  }

  async begin(): Promise<void> {
    this.#child = start(program("belfryd"), ["--config", this.config], cleanEnvironment());
    const status = await this.ready();
    this.address = status.listen[0] ?? "";
    await eventually(async () => (await this.get("/ws/health")).ok, "healthy");
  }

  get(path: string): Promise<Response> {
    return fetch(this.http + path);
  }

  /** belfryctl's output. */
  async ctl(...args: string[]): Promise<string> {
    const { stdout } = await run(program("belfryctl"), ["--config", this.config, ...args], {
      env: cleanEnvironment(),
    });
    return stdout;
  }

  async status(): Promise<Status | null> {
    try {
      return JSON.parse(await this.ctl("status", "--json")) as Status;
    } catch {
      return null;
    }
  }

  ready(check: (status: Status) => boolean = () => true): Promise<Status> {
    return eventually(async () => {
      if (this.#child?.exitCode != null) throw new Error(`belfryd ended:\n${this.#child.log()}`);
      const status = await this.status();
      const isReady = status?.state === "running" && status.workers.length > 0 &&
        status.workers.every((w) => w.state === "ready") && check(status);
      return isReady ? status : null;
    }, "all workers ready");
  }

  /** kill -9 for the worker that has connections, and waits until another is in its place. */
  async killWorker(): Promise<void> {
    const busy = await eventually(
      async () => (await this.status())?.workers.find((w) => w.connections.websockets > 0),
      "a worker with a connection",
    );
    process.kill(busy.pid, "SIGKILL");
    await this.ready((status) => status.workers.every((w) => w.pid !== busy.pid));
  }

  /** New workers take over. */
  async reload(): Promise<void> {
    const before = (await this.ready()).generation;
    process.kill((await this.ready()).pid, "SIGHUP");
    await this.ready((status) => status.generation > before);
  }

  /** kill -9 for the whole instance, and another one on the same address. */
  async crash(): Promise<void> {
    const { workers } = await this.ready();
    if (this.#child) await end(this.#child, "SIGKILL");
    await eventually(() => workers.every((w) => !isAlive(w.pid)), "its workers end");
    await this.begin();
  }

  async stop(): Promise<void> {
    if (this.#child) await end(this.#child);
    removeDirectory(this.directory);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith("BELFRY_")),
  );
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
