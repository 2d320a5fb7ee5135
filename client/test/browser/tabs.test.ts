// Tabs of one origin in Chromium: one socket, and every event once in each of them.

import type { Browser, BrowserContext } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Belfry, makeToken } from "../harness/belfry.js";
import { launch, openTab } from "../harness/browser.js";
import { Network } from "../harness/network.js";
import { PageServer } from "../harness/page.js";
import { eventually } from "../harness/process.js";
import { Redis } from "../harness/redis.js";

let redis: Redis;
let server: Belfry;
let pages: PageServer;
let browser: Browser;
let context: BrowserContext;
let users = 0;
let user = "";
let token = "";

beforeAll(async () => {
  [redis, pages, browser] = await Promise.all([Redis.start(), PageServer.start(), launch()]);
  server = await Belfry.start(redis);
});

afterAll(async () => {
  await browser?.close();
  pages?.stop();
  await server?.stop();
  await redis?.stop();
});

beforeEach(async () => {
  context = await browser.newContext();
  user = `user-${++users}`;
  token = makeToken(user);
});

afterEach(() => context.close());

const QUICK = { backoff: { base: 50, cap: 300, spread: 300 } };
const tab = (options: object = QUICK, url = server.url) =>
  openTab(context, pages.url, url, token, options);

async function connections(): Promise<number> {
  const { total_connections } = (await (await server.get("/ws/health")).json()) as {
    total_connections: number;
  };
  return total_connections;
}

/** Sends count events, a few ms apart; their ids. */
async function send(count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    ids.push((await redis.produce(user, "NEW_TRANSACTION", { id: `t${i}` })).id);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return ids;
}

describe("two tabs", () => {
  it("share one socket, and one that joins later gets what the other has", async () => {
    const before = await send(3);
    const one = await tab();
    await one.has(3);
    const live = await send(2);
    await one.has(5);
    const two = await tab();
    await two.has(5);
    expect(await connections()).toBe(1);
    expect([one.sockets(), two.sockets()]).toEqual([1, 0]);
    expect([await one.role(), await two.role()]).toEqual(["leader", "follower"]);
    const more = await send(5);
    await Promise.all([one.has(10), two.has(10)]);
    for (const t of [one, two]) expect(await t.ids()).toEqual([...before, ...live, ...more]);
    // A command of the one without a socket goes over the other's.
    const syncs = await one.page.evaluate(() => window.tab.syncs);
    await two.page.evaluate(() => window.tab.client.refreshDashboard());
    await eventually(
      async () => (await one.page.evaluate(() => window.tab.syncs)) > syncs,
      "the reply in both tabs",
    );
  });

  it("lose nothing when the one with the socket is closed, or reloaded", async () => {
    const one = await tab();
    const two = await tab();
    const three = await tab();
    const flow = send(40);
    await two.has(5);
    await one.page.close();
    await two.page.reload();
    await two.page.waitForFunction(() => typeof window.openClient === "function");
    const ids = await flow;
    await three.has(40);
    expect(await three.ids()).toEqual(ids);
    expect(await three.role()).toBe("leader");
    await eventually(async () => (await connections()) === 1, "one socket");
    expect(await three.page.evaluate(() => window.tab.gaps)).toBe(0);
  });

  it("get every event once while the server is reloaded, its workers and it are killed", async () => {
    const one = await tab();
    const two = await tab();
    const flow = send(60);
    await one.has(5);
    await server.reload();
    await server.killWorker();
    const ids = [...(await flow)];
    await Promise.all([one.has(60), two.has(60)]);
    const flow2 = send(40);
    await server.crash();
    ids.push(...(await flow2));
    await Promise.all([one.has(100), two.has(100)]);
    for (const t of [one, two]) {
      expect(await t.ids()).toEqual(ids);
      expect(await t.page.evaluate(() => window.tab.gaps)).toBe(0);
    }
    expect(await connections()).toBe(1);
  });

  it("of two users share nothing", async () => {
    const one = await tab();
    token = makeToken(`other-of-${user}`);
    const two = await tab();
    const ids = await send(1);
    await one.has(1);
    expect(await one.ids()).toEqual(ids);
    expect(await two.ids()).toEqual([]);
    expect([await one.role(), await two.role()]).toEqual(["leader", "leader"]);
  });

  it("have one each where the browser knows no locks", async () => {
    await context.addInitScript(() =>
      Object.defineProperty(Navigator.prototype, "locks", { get: () => undefined }),
    );
    const one = await tab();
    const two = await tab();
    const ids = await send(2);
    for (const t of [one, two]) {
      await t.has(2);
      expect(await t.ids()).toEqual(ids);
      expect(await t.role()).toBe("alone");
    }
    expect(await connections()).toBe(2);
  });

  it("stay away together when an administrator closed the connection", async () => {
    const one = await tab();
    const two = await tab();
    await server.ctl("kick", user);
    await eventually(async () => (await two.status()) === "disconnected", "both are told");
    await one.page.close();
    await eventually(async () => (await two.role()) === "leader", "the other takes over");
    expect(await two.status()).toBe("disconnected");
    expect(two.sockets()).toBe(0);
    await two.page.evaluate(() => window.tab.client.connect());
    await eventually(async () => (await two.status()) === "connected", "back when asked for");
  });

  it("go on when the one with the socket hangs", async () => {
    const one = await tab();
    const two = await tab();
    await send(1);
    await two.has(1);
    // As good as frozen: it says nothing any more, and keeps the lock.
    await one.page.evaluate(() => {
      BroadcastChannel.prototype.postMessage = () => {};
    });
    await send(1);
    await two.page.evaluate(() => window.dispatchEvent(new Event("online"))); // somebody looks
    await two.has(2);
    expect(await two.role()).toBe("leader");
  });
});

describe("a laptop", () => {
  it("that slept finds the dead connection on waking, and gets what it missed", async () => {
    await context.clock.install();
    const line = await Network.to(server.address);
    const one = await tab(QUICK, line.url);
    await send(1);
    await one.has(1);
    line.freeze(); // the network forgot the connection while it slept
    await send(3);
    await context.clock.fastForward("08:00:00");
    await one.has(4);
    expect(one.sockets()).toBe(2);
    line.stop();
  });

  it("whose network comes back does not wait for the next try", async () => {
    const patient = { backoff: { base: 60_000, cap: 60_000 } };
    const line = await Network.to(server.address);
    const one = await tab(patient, line.url);
    line.down();
    await eventually(async () => (await one.status()) === "connecting", "it notices");
    await send(2);
    line.up();
    const at = Date.now();
    await one.page.evaluate(() => window.dispatchEvent(new Event("online")));
    await one.has(2);
    expect(Date.now() - at).toBeLessThan(10_000);
    line.stop();
  });
});
