// A private redis-server, and a backend that knows nothing of Belfry: LPUSH, LTRIM, EXPIRE, PUBLISH.

import { randomUUID } from "node:crypto";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { end, eventually, makeDirectory, removeDirectory, start } from "./process.js";

export interface Produced {
  id: string;
  type: string;
  payload: Record<string, unknown>;
}

export class Redis {
  readonly directory = makeDirectory();
  readonly path = join(this.directory, "redis.sock");
  readonly #child = start("redis-server", [
    ...["--port", "0", "--unixsocket", this.path, "--unixsocketperm", "777"],
    ...["--dir", this.directory, "--save", "", "--appendonly", "no"],
  ]);
  #socket: Socket | null = null;
  #waiting: ((reply: string) => void)[] = [];
  #text = "";

  static async start(): Promise<Redis> {
    const redis = new Redis();
    redis.#socket = await eventually(() => redis.#dial(), "redis-server listens");
    redis.#socket.on("data", (data) => redis.#read(data.toString()));
    return redis;
  }

  get url(): string {
    return `unix://${this.path}`;
  }

  #dial(): Promise<Socket | null> {
    return new Promise((resolve) => {
      const socket = connect(this.path, () => resolve(socket));
      socket.once("error", () => resolve(null));
    });
  }

  /** Replies here are one line each: numbers, OK, errors. */
  #read(data: string): void {
    this.#text += data;
    const lines = this.#text.split("\r\n");
    this.#text = lines.pop() ?? "";
    for (const line of lines) this.#waiting.shift()?.(line);
  }

  command(...words: (string | number)[]): Promise<string> {
    const parts = words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`);
    this.#socket?.write(`*${words.length}\r\n${parts.join("")}`);
    return new Promise((resolve, reject) =>
      this.#waiting.push((reply) =>
        reply.startsWith("-") ? reject(new Error(reply)) : resolve(reply),
      ),
    );
  }

  /** Stores and publishes, as plain producers do. */
  async produce(user: string, type = "NOTIFICATION", payload = {}, id: string = randomUUID()) {
    const message: Produced = { id, type, payload };
    const timestamp = new Date().toISOString();
    const text = JSON.stringify({ ...message, user_id: user, timestamp });
    const channel = `ws:user:${user}`;
    await Promise.all([
      this.command("LPUSH", `notifications:${user}`, text),
      this.command("LTRIM", `notifications:${user}`, 0, 99),
      this.command("EXPIRE", `notifications:${user}`, 604_800),
      this.command("PUBLISH", channel, JSON.stringify({ ...JSON.parse(text), channel })),
    ]);
    return message;
  }

  async stop(): Promise<void> {
    this.#socket?.destroy();
    await end(this.#child, "SIGKILL");
    removeDirectory(this.directory);
  }
}
