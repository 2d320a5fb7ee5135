import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BelfryClient, type BelfryOptions } from "belfry-client";
import { FakeSocket, FakeWebSocket, fakeToken } from "./fake-socket.js";

let clients: BelfryClient[] = [];

beforeEach(() => {
  vi.useFakeTimers({ now: new Date("2026-11-23T08:00:00Z") });
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  FakeSocket.reset();
});

afterEach(() => {
  for (const client of clients) client.close();
  clients = [];
  vi.useRealTimers();
  vi.restoreAllMocks();
});

function make(options: Partial<BelfryOptions> = {}): BelfryClient {
  const client = new BelfryClient({
    url: "ws://gateway/ws",
    getToken: () => fakeToken("alice"),
    WebSocket: FakeWebSocket,
    share: false,
    ...options,
  });
  clients.push(client);
  return client;
}

const settle = () => vi.advanceTimersByTimeAsync(0);

async function connected(options: Partial<BelfryOptions> = {}) {
  const client = make(options);
  client.connect();
  await settle();
  FakeSocket.last.accept();
  return client;
}

describe("connecting", () => {
  it("shares with nobody outside of a page", async () => {
    vi.stubGlobal("navigator", { locks: { request: vi.fn() } });
    const client = make({ share: true });
    client.connect();
    await settle();
    FakeSocket.last.accept();
    expect(client.state.role).toBe("alone");
    vi.unstubAllGlobals();
  });

  it("offers belfry.v1 and gives the token in the first frame, not in the URL", async () => {
    const client = make({ types: ["NOTIFICATION"] });
    client.connect();
    await settle();
    const socket = FakeSocket.last;
    expect(socket.url).toBe("ws://gateway/ws");
    expect(socket.protocols).toEqual(["belfry.v1"]);
    expect(client.state.status).toBe("connecting");
    socket.open();
    expect(socket.sent).toEqual([
      { type: "auth", payload: { token: fakeToken("alice"), types: ["NOTIFICATION"] } },
    ]);
    socket.receive({ type: "auth_ok", payload: { expires_at: null } });
    expect(client.state.status).toBe("connected");
  });

  it("puts the token into the URL, or beside the subprotocol, when asked to", async () => {
    make({ tokenIn: "query", types: ["PING", "PONG"] }).connect();
    await settle();
    expect(new URL(FakeSocket.last.url).searchParams.get("token")).toBe(fakeToken("alice"));
    expect(new URL(FakeSocket.last.url).searchParams.get("types")).toBe("PING,PONG");
    make({ tokenIn: "subprotocol" }).connect();
    await settle();
    expect(FakeSocket.last.url).toBe("ws://gateway/ws");
    expect(FakeSocket.last.protocols).toEqual(["belfry.v1", `bearer.${fakeToken("alice")}`]);
  });

  it("stays disconnected when nobody is signed in, and tries again when told to", async () => {
    let token: string | null = null;
    const client = make({ getToken: () => token });
    client.connect();
    await settle();
    expect(FakeSocket.all).toHaveLength(0);
    expect(client.state.status).toBe("disconnected");
    expect(client.state.lastError?.reason).toMatch(/signed in/);
    token = fakeToken("alice");
    client.connect();
    await settle();
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("asks again, later and later, for a token that cannot be had", async () => {
    const getToken = vi.fn(() => Promise.reject(new Error("offline")));
    const client = make({ getToken });
    client.connect();
    await settle();
    expect(client.state.lastError?.reason).toBe("no token: offline");
    const waits = [];
    for (let i = 0; i < 4; i++) {
      waits.push((client.state.retryAt ?? 0) - Date.now());
      await vi.advanceTimersToNextTimerAsync();
    }
    expect(waits).toEqual([500, 1000, 2000, 4000]);
  });

  it("complains at once where there is no WebSocket", () => {
    vi.stubGlobal("WebSocket", undefined);
    expect(() => make({ WebSocket: undefined }).connect()).toThrow(/no WebSocket/);
    vi.unstubAllGlobals();
  });

  it("gives up a server that does not answer, and tries again", async () => {
    const client = make();
    client.connect();
    await settle();
    FakeSocket.last.open(); // and not a word
    await vi.advanceTimersByTimeAsync(15_000);
    expect(FakeSocket.all[0]?.isClosed).toBe(true);
    expect(client.state).toMatchObject({ status: "connecting", attempts: 1 });
    await vi.advanceTimersByTimeAsync(2_000);
    expect(FakeSocket.all).toHaveLength(2);
  });
});

describe("messages", () => {
  it("reach listeners of the type in either case, of all messages, once for each id", async () => {
    const client = await connected();
    const heard: string[] = [];
    client.on("NOTIFICATION", (m) => heard.push(`upper ${m.id}`));
    client.on("notification", (m) => heard.push(`lower ${m.id}`));
    const stop = client.on("message", (m) => heard.push(`any ${m.id}`));
    FakeSocket.last.event("a", "notification");
    FakeSocket.last.event("a", "NOTIFICATION");
    stop();
    FakeSocket.last.event("b");
    expect(heard).toEqual(["any a", "upper a", "lower a", "upper b", "lower b"]);
    expect(client.lastId).toBe("b");
  });

  it("with an unknown type, or without an id, arrive as they are", async () => {
    const client = await connected();
    const heard: unknown[] = [];
    client.on("message", (m) => heard.push(m));
    FakeSocket.last.receive("pong");
    FakeSocket.last.receive("no JSON");
    FakeSocket.last.receive({ type: "odd", data: 1 });
    FakeSocket.last.receive({ type: "odd", data: 1 });
    expect(heard).toEqual([{ type: "odd", data: 1 }, { type: "odd", data: 1 }]);
  });

  it("go to the other listeners when one of them throws", async () => {
    const client = await connected();
    const complaints: unknown[] = [];
    vi.stubGlobal("queueMicrotask", (run: () => void) => {
      try {
        run();
      } catch (error) {
        complaints.push(error);
      }
    });
    const heard = vi.fn();
    client.on("message", () => {
      throw new Error("mine");
    });
    client.on("message", heard);
    FakeSocket.last.event("a");
    expect(heard).toHaveBeenCalledOnce();
    expect(complaints).toEqual([new Error("mine")]);
    vi.unstubAllGlobals();
  });

  it("tell of a gap that the server cannot fill", async () => {
    const client = make();
    const gaps = vi.fn();
    client.on("gap", gaps);
    client.connect();
    await settle();
    FakeSocket.last.accept({ sync: { recovered: false } });
    expect(gaps).toHaveBeenCalledWith({ reason: "too late" });
  });

  it("are filtered here as well as there, and stay so after a reconnect", async () => {
    const client = await connected();
    const heard: string[] = [];
    client.on("message", (m) => heard.push(m.type));
    client.subscribe(["budget_alert"]);
    expect(FakeSocket.last.sentOf("subscribe")).toEqual([
      { type: "subscribe", payload: { types: ["budget_alert"] } },
    ]);
    FakeSocket.last.event("a", "NOTIFICATION");
    FakeSocket.last.event("b", "BUDGET_ALERT");
    FakeSocket.last.event(undefined, "notifications_marked_read");
    expect(heard).toEqual(["BUDGET_ALERT", "notifications_marked_read"]);
    FakeSocket.last.lose();
    await vi.advanceTimersByTimeAsync(5_000);
    FakeSocket.last.accept();
    expect(FakeSocket.last.sentOf("auth")[0]?.payload.types).toEqual(["BUDGET_ALERT"]);
  });
});

describe("resuming", () => {
  async function reconnect() {
    FakeSocket.last.lose();
    await vi.advanceTimersByTimeAsync(30_000);
    FakeSocket.last.open();
    const { last_id, seen } = FakeSocket.last.sentOf("auth").at(-1)?.payload ?? {};
    return { last_id, seen };
  }

  it("names the last stored message and up to 32 before it", async () => {
    await connected();
    for (let i = 0; i < 40; i++) FakeSocket.last.event(`m${i}`);
    const { last_id, seen } = await reconnect();
    expect(last_id).toBe("m39");
    expect(seen).toEqual(Array.from({ length: 32 }, (_, i) => `m${i + 8}`));
  });

  it("does not name what is never stored: broadcasts, snapshots", async () => {
    await connected();
    FakeSocket.last.event("a");
    FakeSocket.last.event("s", "DASHBOARD_UPDATE");
    FakeSocket.last.event("b1", "SYSTEM_ALERT", { channel: "ws:broadcast" });
    FakeSocket.last.event("b2", "SYSTEM_ALERT", { user_id: "system" });
    expect(await reconnect()).toEqual({ last_id: "a", seen: ["a"] });
  });

  it("names the last_id of FULL_SYNC, once what this announced has come", async () => {
    const client = make();
    client.connect();
    await settle();
    FakeSocket.last.accept({ sync: { missed: 2, last_id: "old" } });
    expect(client.lastId).toBeNull();
    FakeSocket.last.event("x1");
    expect(client.lastId).toBe("x1");
    FakeSocket.last.event("old");
    FakeSocket.last.event("new");
    expect(await reconnect()).toEqual({ last_id: "new", seen: ["x1", "old", "new"] });
  });

  it("begins after the FULL_SYNC of an empty start", async () => {
    const client = make();
    client.connect();
    await settle();
    FakeSocket.last.accept({ sync: { missed: 0, last_id: "old" } });
    expect(client.lastId).toBe("old");
    FakeSocket.last.event("new");
    expect(await reconnect()).toEqual({ last_id: "new", seen: ["old", "new"] });
  });

  it("keeps its place in storage if wanted, for each user apart", async () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value),
      removeItem: (key: string) => void kept.delete(key),
    };
    await connected({ persist: storage });
    FakeSocket.last.event("a");
    await vi.advanceTimersByTimeAsync(200);
    const again = make({ persist: storage });
    again.connect();
    await settle();
    FakeSocket.last.open();
    expect(FakeSocket.last.sentOf("auth")[0]?.payload).toMatchObject({ last_id: "a", seen: ["a"] });
    make({ persist: storage, getToken: () => fakeToken("bob") }).connect();
    await settle();
    FakeSocket.last.open();
    expect(FakeSocket.last.sentOf("auth")[0]?.payload.last_id).toBeUndefined();
  });

  it("forgets the place of another user", async () => {
    let user = "alice";
    const client = await connected({ getToken: () => fakeToken(user) });
    FakeSocket.last.event("a");
    user = "bob";
    FakeSocket.last.lose();
    await vi.advanceTimersByTimeAsync(5_000);
    FakeSocket.last.open();
    expect(FakeSocket.last.sentOf("auth")[0]?.payload).toEqual({ token: fakeToken("bob") });
    expect(client.lastId).toBeNull();
  });
});

describe("coming back", () => {
  it("waits longer and longer, by chance, up to a cap", async () => {
    const client = await connected({ backoff: { base: 1_000, cap: 20_000 } });
    const waits = [];
    for (let i = 0; i < 7; i++) {
      FakeSocket.last.lose();
      const wait = (client.state.retryAt ?? 0) - Date.now();
      waits.push(wait);
      await vi.advanceTimersByTimeAsync(wait);
    }
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
    expect(client.state.attempts).toBe(7);
    vi.mocked(Math.random).mockReturnValue(0);
    FakeSocket.last.lose();
    expect((client.state.retryAt ?? 0) - Date.now()).toBe(250); // not faster than that
  });

  it("starts from the short wait again after a connection that lasted", async () => {
    const client = await connected();
    for (let i = 0; i < 5; i++) {
      FakeSocket.last.lose();
      await vi.advanceTimersByTimeAsync((client.state.retryAt ?? 0) - Date.now());
    }
    FakeSocket.last.accept();
    expect(client.state).toMatchObject({ status: "connected", attempts: 0, lastError: null });
    await vi.advanceTimersByTimeAsync(10_000);
    FakeSocket.last.lose();
    expect((client.state.retryAt ?? 0) - Date.now()).toBe(500);
  });

  const waits: [number, number, number][] = [
    [1001, 0, 1_000],
    [1002, 5_000, 9_000],
    [1003, 5_000, 9_000],
    [1007, 5_000, 9_000],
    [1008, 5_000, 9_000],
    [1009, 5_000, 9_000],
    [1011, 0, 1_000],
    [1012, 0, 10_000],
    [1013, 5_000, 30_000],
    [4008, 0, 1_000],
    [4029, 30_000, 60_000],
    [1000, 0, 1_000],
    [1005, 0, 1_000],
  ];
  it.each(waits)("after %i waits between %i and %i ms", async (code, low, high) => {
    for (const chance of [0, 0.999]) {
      const client = await connected();
      vi.mocked(Math.random).mockReturnValue(chance);
      await vi.advanceTimersByTimeAsync(12_000);
      FakeSocket.last.lose(code, "");
      const wait = (client.state.retryAt ?? 0) - Date.now();
      if (chance === 0) expect(wait).toBe(low);
      else expect(wait).toBeGreaterThan(low + (high - low) * 0.7);
      expect(wait).toBeLessThanOrEqual(high);
      client.close();
    }
  });

  it("after 4003 stays away until told otherwise", async () => {
    const client = await connected();
    FakeSocket.last.lose(4003, "closed by an administrator");
    expect(client.state).toMatchObject({
      status: "disconnected",
      retryAt: null,
      lastError: { code: 4003, reason: "closed by an administrator", advice: "stop" },
    });
    await vi.advanceTimersByTimeAsync(3_600_000);
    client.acquire()();
    expect(FakeSocket.all).toHaveLength(1);
    client.connect();
    await settle();
    expect(FakeSocket.all).toHaveLength(2);
  });

  it.each([4001, 4002])("after %i gets a fresh token first, and comes at once", async (code) => {
    let serial = 0;
    const getToken = vi.fn(() => fakeToken("alice", serial++));
    const client = await connected({ getToken });
    getToken.mockClear();
    await vi.advanceTimersByTimeAsync(12_000);
    FakeSocket.last.lose(code);
    await vi.advanceTimersByTimeAsync(0);
    expect(getToken).toHaveBeenCalledExactlyOnceWith({ fresh: true });
    expect(FakeSocket.all).toHaveLength(2);
    expect(client.state.status).toBe("connecting");
  });

  it("does not show a token again that was refused", async () => {
    const getToken = vi.fn(() => fakeToken("alice"));
    const client = await connected({ getToken });
    await vi.advanceTimersByTimeAsync(12_000);
    FakeSocket.last.lose(4001, "authentication failed");
    await vi.advanceTimersByTimeAsync(20_000);
    expect(getToken.mock.calls.length).toBeGreaterThan(3);
    expect(FakeSocket.all).toHaveLength(1);
    expect(client.state.lastError?.code).toBe(4001);
    getToken.mockReturnValue(fakeToken("alice", 1));
    await vi.advanceTimersByTimeAsync(20_000);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it("sends what was said meanwhile", async () => {
    const client = await connected();
    FakeSocket.last.lose();
    expect(client.markNotificationsRead(["n1"])).toBe(true);
    await vi.advanceTimersByTimeAsync(5_000);
    FakeSocket.last.accept();
    expect(FakeSocket.last.sentOf("mark_notification_read")).toEqual([
      { type: "mark_notification_read", payload: { notification_ids: ["n1"] } },
    ]);
    client.close();
    expect(client.markNotificationsRead(["n2"])).toBe(false);
  });

  it("close ends it, and connect resumes", async () => {
    const client = await connected();
    FakeSocket.last.event("a");
    client.close();
    expect(FakeSocket.last.isClosed).toBe(true);
    expect(client.state.status).toBe("disconnected");
    await vi.advanceTimersByTimeAsync(100_000);
    expect(FakeSocket.all).toHaveLength(1);
    client.connect();
    await settle();
    FakeSocket.last.open();
    expect(FakeSocket.last.sentOf("auth")[0]?.payload.last_id).toBe("a");
  });

  it("is closed when the last of its holders has let go, and not for a moment's change", async () => {
    const client = make();
    const first = client.acquire();
    const second = client.acquire();
    await settle();
    first();
    first();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe("connecting");
    second();
    const third = client.acquire();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.all).toHaveLength(1);
    third();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(client.state.status).toBe("disconnected");
  });
});

describe("the heartbeat", () => {
  it("asks after silence, and takes no answer for the end", async () => {
    FakeSocket.answersPings = false;
    const client = await connected();
    await vi.advanceTimersByTimeAsync(20_000);
    FakeSocket.last.event("a");
    await vi.advanceTimersByTimeAsync(24_000);
    expect(FakeSocket.last.sentOf("ping")).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.last.sentOf("ping")).toHaveLength(1);
    FakeSocket.last.pong();
    await vi.advanceTimersByTimeAsync(25_000);
    expect(FakeSocket.last.sentOf("ping")).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(FakeSocket.all[0]?.isClosed).toBe(true);
    expect(client.state.lastError?.reason).toBe("no answer from the server");
  });

  it("asks once more when the machine slept meanwhile", async () => {
    FakeSocket.answersPings = false;
    const client = await connected();
    await vi.advanceTimersByTimeAsync(25_000);
    expect(FakeSocket.last.sentOf("ping")).toHaveLength(1);
    vi.setSystemTime(Date.now() + 3_600_000); // the timer did not run meanwhile
    await vi.advanceTimersByTimeAsync(10_000);
    expect(FakeSocket.last.sentOf("ping")).toHaveLength(2);
    expect(client.state.status).toBe("connected");
    await vi.advanceTimersByTimeAsync(3_000);
    expect(client.state.status).toBe("connecting");
  });
});

describe("the token", () => {
  it("is renewed in band before it ends", async () => {
    let serial = 0;
    const getToken = vi.fn(() => fakeToken("alice", serial++));
    const client = make({ getToken });
    client.connect();
    await settle();
    const expiresAt = new Date(Date.now() + 600_000).toISOString();
    FakeSocket.last.accept({ expiresAt });
    getToken.mockClear();
    await vi.advanceTimersByTimeAsync(500_000);
    expect(getToken).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(50_000);
    expect(getToken).toHaveBeenCalledExactlyOnceWith({ fresh: true });
    expect(FakeSocket.last.sentOf("auth").at(-1)?.payload).toEqual({
      token: fakeToken("alice", serial - 1),
    });
    expect(FakeSocket.all).toHaveLength(1);
    expect(client.state.status).toBe("connected");
  });

  it("is renewed by the server's clock when ours is wrong", async () => {
    let serial = 0;
    const getToken = vi.fn(() => fakeToken("alice", serial++));
    make({ getToken }).connect();
    await settle();
    const socket = FakeSocket.last;
    const server = Date.now() + 7_200_000; // two hours ahead of us
    socket.open();
    socket.receive({
      type: "auth_ok",
      payload: { expires_at: new Date(server + 600_000).toISOString() },
    });
    FakeSocket.answersPings = false;
    socket.pong(new Date(server).toISOString());
    getToken.mockClear();
    for (let i = 0; i < 56; i++) {
      await vi.advanceTimersByTimeAsync(10_000);
      socket.pong(new Date(Date.now() + 7_200_000).toISOString());
    }
    expect(getToken).toHaveBeenCalledOnce();
  });

  it("is asked for again when there is no newer one yet, but not in a hurry", async () => {
    const getToken = vi.fn(() => fakeToken("alice"));
    make({ getToken }).connect();
    await settle();
    FakeSocket.last.accept({ expiresAt: new Date(Date.now() + 60_000).toISOString() });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(FakeSocket.last.sentOf("auth")).toHaveLength(1);
    expect(getToken.mock.calls.length).toBeLessThan(12);
    expect(getToken.mock.calls.length).toBeGreaterThan(2);
  });
});

describe("acks", () => {
  it("are batched by number and by time, and off unless wanted", async () => {
    await connected();
    FakeSocket.last.event("a");
    await vi.advanceTimersByTimeAsync(5_000);
    expect(FakeSocket.last.sentOf("ack")).toHaveLength(0);

    await connected({ ack: { every: 3, delay: 1_000 } });
    for (const id of ["a", "b", "c", "d"]) FakeSocket.last.event(id);
    expect(FakeSocket.last.sentOf("ack").map((m) => m.payload.last_id)).toEqual(["c"]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.last.sentOf("ack").map((m) => m.payload.last_id)).toEqual(["c", "d"]);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(FakeSocket.last.sentOf("ack")).toHaveLength(2);
  });
});
