// The client against the real server with a real Redis: every event once and in order, whatever
// breaks in between.

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import WebSocket from "ws";
import { BelfryClient, type BelfryMessage, type BelfryOptions, type Gap } from "belfry-client";
import { Belfry, makeToken } from "../harness/belfry.js";
import { Network } from "../harness/network.js";
import { eventually } from "../harness/process.js";
import { Redis } from "../harness/redis.js";

let redis: Redis;
let server: Belfry;
let clients: BelfryClient[] = [];
let networks: Network[] = [];
let users = 0;

beforeAll(async () => {
  redis = await Redis.start();
  server = await Belfry.start(redis, { "jwt-leeway": "0", "max-connections-per-user": "4" });
});

afterEach(() => {
  for (const client of clients) client.close();
  for (const network of networks) network.stop();
  clients = [];
  networks = [];
});

afterAll(async () => {
  await server?.stop();
  await redis?.stop();
});

/** A device, and what it got. */
async function device(user: string, options: Partial<BelfryOptions> = {}) {
  const client = new BelfryClient({
    url: server.url,
    WebSocket,
    getToken: () => makeToken(user),
    ...options,
  });
  clients.push(client);
  const got: BelfryMessage[] = [];
  const gaps: Gap[] = [];
  const syncs: BelfryMessage[] = [];
  client.on("message", (m) => void (m.id !== undefined && got.push(m)));
  client.on("FULL_SYNC", (m) => void syncs.push(m));
  client.on("gap", (gap) => void gaps.push(gap));
  client.connect();
  await eventually(() => syncs.length, "FULL_SYNC");
  const has = (count: number) => eventually(() => got.length >= count, `${count} messages`);
  const back = (count: number) => eventually(() => syncs.length >= count, `FULL_SYNC ${count}`);
  return { client, got, gaps, syncs, has, back, ids: () => got.map((m) => m.id) };
}

const newUser = () => `user-${++users}`;

async function network() {
  const one = await Network.to(server.address);
  networks.push(one);
  return one;
}

/** Sends events until told to stop; their ids. */
function stream(user: string, pause = 5) {
  const ids: string[] = [];
  let isOn = true;
  const ended = (async () => {
    while (isOn) {
      ids.push((await redis.produce(user, "NEW_TRANSACTION", { id: `t${ids.length}` })).id);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  })();
  return {
    ids,
    stop: async () => {
      isOn = false;
      await ended;
    },
  };
}

describe("a device", () => {
  it("is told who it is, gets what was stored, and then what comes", async () => {
    const user = newUser();
    const before = await redis.produce(user, "BUDGET_ALERT", { budget_id: "b1" });
    const { client, syncs, has, ids } = await device(user);
    expect(syncs[0]?.user_id).toBe(user);
    expect(client.state).toMatchObject({ status: "connected", role: "alone", attempts: 0 });
    expect(client.state.connectionId).toBe(syncs[0]?.sync?.connection_id);
    const after = await redis.produce(user, "new_transaction", { id: "t1" });
    await has(2);
    expect(ids()).toEqual([before.id, after.id]);
    expect(client.lastId).toBe(after.id);
  });

  it("hears of marks that another device of the user made", async () => {
    const user = newUser();
    const note = await redis.produce(user);
    const one = await device(user);
    const other = await device(user);
    const marked: unknown[] = [];
    other.client.on("notifications_marked_read", (m) => marked.push(m.payload.marked_read));
    one.client.markNotificationsRead([note.id]);
    await eventually(() => marked.length, "the mark");
    expect(marked).toEqual([[note.id]]);
    one.client.refreshDashboard();
    await one.back(2);
  });

  it("that acknowledges lets the next one begin there", async () => {
    const user = newUser();
    const first = await device(user, { ack: { every: 1 } });
    await redis.produce(user);
    const { id } = await redis.produce(user);
    await first.has(2);
    // A reply to a later command: the ack was handled.
    first.client.refreshDashboard();
    await first.back(2);
    const next = await device(user);
    const later = await redis.produce(user);
    await next.has(1);
    expect(first.ids()).toContain(id);
    expect(next.ids()).toEqual([later.id]);
  });
});

describe("every event arrives once and in order", () => {
  it("when workers are killed while they flow", async () => {
    const user = newUser();
    const { got, has, ids, gaps } = await device(user, { backoff: { base: 50 } });
    const flow = stream(user);
    for (let i = 0; i < 3; i++) {
      await has(got.length + 10);
      await server.killWorker();
    }
    await flow.stop();
    await has(flow.ids.length);
    expect(ids()).toEqual(flow.ids);
    expect(gaps).toEqual([]);
  });

  it("when the server is reloaded, without a reconnect", async () => {
    const user = newUser();
    const { got, has, ids, syncs } = await device(user);
    const flow = stream(user);
    await has(10);
    await server.reload();
    await has(got.length + 10);
    await flow.stop();
    await has(flow.ids.length);
    expect(ids()).toEqual(flow.ids);
    expect(syncs).toHaveLength(1);
  });

  it("when it was offline for a while", async () => {
    const user = newUser();
    const line = await network();
    const { client, has, ids, back, gaps } = await device(user, {
      url: line.url,
      backoff: { base: 20, cap: 100 },
    });
    const sent = [await redis.produce(user)];
    await has(1);
    line.down();
    await eventually(() => client.state.attempts >= 3, "three tries in vain");
    expect(client.state).toMatchObject({ status: "connecting", lastError: { code: 0 } });
    for (let i = 0; i < 50; i++) sent.push(await redis.produce(user));
    line.up();
    await back(2);
    sent.push(await redis.produce(user));
    await has(52);
    expect(ids()).toEqual(sent.map((m) => m.id));
    expect(gaps).toEqual([]);
  });

  it("when the network goes silent and nobody says so", async () => {
    const user = newUser();
    const line = await network();
    const { client, has, ids, back } = await device(user, {
      url: line.url,
      backoff: { base: 20 },
      heartbeat: { interval: 300, timeout: 500 },
    });
    const errors: unknown[] = [];
    client.on("state", (state) => state.lastError && errors.push(state.lastError.reason));
    line.freeze();
    const { id } = await redis.produce(user);
    await back(2);
    await has(1);
    expect(ids()).toEqual([id]);
    expect(errors).toContain("no answer from the server");
  });

  it("when a producer repeats itself beyond what the server remembers", async () => {
    const user = newUser();
    const { has, ids } = await device(user);
    const first = await redis.produce(user);
    const rest = [];
    for (let i = 0; i < 70; i++) rest.push(await redis.produce(user));
    await redis.produce(user, first.type, first.payload, first.id);
    const last = await redis.produce(user);
    await has(72);
    expect(ids()).toEqual([first, ...rest, last].map((m) => m.id));
  });

  it("and it is told when it comes back too late", async () => {
    const user = newUser();
    const line = await network();
    const { has, gaps, back } = await device(user, { url: line.url, backoff: { base: 20, cap: 50 } });
    await redis.produce(user);
    await has(1);
    line.down();
    for (let i = 0; i < 110; i++) await redis.produce(user);
    line.up();
    await back(2);
    expect(gaps).toEqual([{ reason: "too late" }]);
  });
});

describe("the token", () => {
  it("is renewed in band, and the connection lasts", async () => {
    const user = newUser();
    const asked: boolean[] = [];
    const { client, syncs } = await device(user, {
      getToken: ({ fresh }) => {
        asked.push(fresh);
        return makeToken(user, { ttl: 2 });
      },
    });
    const id = client.state.connectionId;
    await eventually(() => asked.length >= 4, "three renewals");
    expect(asked).toEqual([false, true, true, true]);
    expect(client.state).toMatchObject({ status: "connected", connectionId: id });
    expect(syncs).toHaveLength(1);
  });

  it("that ends is followed by a fresh one at the next connect, and nothing is lost", async () => {
    const user = newUser();
    const codes = new Set<number>();
    let isOut = true; // whoever gives tokens is out of order
    let given = 0;
    const { client, has, ids, back } = await device(user, {
      backoff: { base: 50, cap: 200 },
      getToken: () => {
        if (given++ > 0 && isOut) throw new Error("out of order");
        return makeToken(user, { ttl: given === 1 ? 2 : 600 });
      },
    });
    client.on("state", (state) => state.lastError && codes.add(state.lastError.code));
    await eventually(() => codes.has(4002), "4002");
    const { id } = await redis.produce(user);
    isOut = false;
    await back(2);
    await has(1);
    expect(ids()).toEqual([id]);
  });

  it("that is refused is not shown again", async () => {
    const bad = makeToken("nobody").slice(0, -4) + "AAAA";
    const codes: number[] = [];
    let asks = 0;
    let token = bad;
    const client = new BelfryClient({
      url: server.url,
      WebSocket,
      backoff: { base: 20, cap: 50 },
      getToken: () => (asks++, token),
    });
    clients.push(client);
    client.on("state", (state) => state.lastError && codes.push(state.lastError.code));
    client.connect();
    await eventually(() => asks > 6, "it asks for another token");
    expect(new Set(codes)).toEqual(new Set([4001]));
    const refused = (await (await server.get("/ws/health")).json()) as { total_connections: number };
    expect(refused.total_connections).toBe(0);
    token = makeToken("nobody");
    await eventually(() => client.state.status === "connected", "it connects with a good one");
  });
});

describe("close codes", () => {
  it("4003: who was thrown out stays away", async () => {
    const user = newUser();
    const { client } = await device(user);
    await server.ctl("kick", user);
    await eventually(() => client.state.lastError?.code === 4003, "4003");
    expect(client.state).toMatchObject({ status: "disconnected", retryAt: null });
  });

  it("4029: one too many waits long", async () => {
    const user = newUser();
    for (let i = 0; i < 4; i++) await device(user);
    const client = new BelfryClient({ url: server.url, WebSocket, getToken: () => makeToken(user) });
    clients.push(client);
    client.connect();
    await eventually(() => client.state.lastError?.code === 4029, "4029");
    expect((client.state.retryAt ?? 0) - Date.now()).toBeGreaterThan(20_000);
  });

  it("1001: comes back when the server does", async () => {
    const user = newUser();
    const { client, has, back, ids } = await device(user, { backoff: { base: 50, cap: 200 } });
    await server.crash();
    const { id } = await redis.produce(user);
    await back(2);
    await has(1);
    expect(ids()).toEqual([id]);
    expect(client.state.status).toBe("connected");
  });
});
