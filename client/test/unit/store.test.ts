import { beforeEach, describe, expect, it, vi } from "vitest";
import { BelfryClient, EVENTS, type EventType } from "belfry-client";
import { ACTIONS, bindStore, createRealtimeStore, type RealtimeStore } from "belfry-client/store";
import { FakeSocket, FakeWebSocket, fakeToken } from "./fake-socket.js";

let store: RealtimeStore;
const data = () => store.getState();
const hear = (message: unknown) => data().handleWebSocketMessage(message);

beforeEach(() => {
  store = createRealtimeStore();
});

const transaction = (id: string, more = {}) => ({
  id,
  amount_cents: -1250,
  description: "Coffee",
  account_id: "a1",
  transaction_date: "2026-11-23",
  is_income: false,
  ...more,
});

describe("transactions", () => {
  it("stand newest first, at most 50, each once", () => {
    for (let i = 0; i < 60; i++) hear({ id: `m${i}`, type: "NEW_TRANSACTION", payload: transaction(`t${i}`) });
    hear({ id: "again", type: "NEW_TRANSACTION", payload: transaction("t58") });
    const ids = data().recentTransactions.map((t) => t.id);
    expect(ids).toHaveLength(50);
    expect(ids.slice(0, 3)).toEqual(["t58", "t59", "t57"]);
    expect(data().transactionUpdates).toHaveLength(50);
  });

  it("are updated and deleted in place, in whatever case the type comes", () => {
    for (const id of ["a", "b", "c"]) hear({ type: "new_transaction", payload: transaction(id) });
    hear({ type: "transaction_updated", payload: transaction("b", { description: "Tea" }) });
    expect(data().recentTransactions.map((t) => [t.id, t.description])).toEqual([
      ["c", "Coffee"],
      ["b", "Tea"],
      ["a", "Coffee"],
    ]);
    hear({ type: "TRANSACTION_DELETED", payload: { id: "b" } });
    expect(data().recentTransactions.map((t) => t.id)).toEqual(["c", "a"]);
    expect(data().transactionUpdates.slice(0, 2).map((u) => u.kind)).toEqual(["deleted", "updated"]);
  });

  it("come from FULL_SYNC behind what came live, and not when deleted meanwhile", () => {
    hear({ type: "NEW_TRANSACTION", payload: transaction("new") });
    hear({ type: "TRANSACTION_DELETED", payload: { id: "gone" } });
    hear({
      type: "FULL_SYNC",
      payload: {
        total_balance: 12,
        recent_transactions: ["new", "gone", "old"].map((id) => transaction(id)),
      },
      sync: { recovered: true, missed: 0, unread: 3, last_id: "x", connection_id: "c" },
    });
    expect(data().recentTransactions.map((t) => t.id)).toEqual(["new", "old"]);
    expect(data().dashboard?.total_balance).toBe(12);
    expect(data().sync?.unread).toBe(3);
  });
});

describe("notifications", () => {
  const note = (id: string, more = {}) => ({
    id,
    type: "NOTIFICATION",
    payload: {
      id: `p-${id}`,
      title: "Hello",
      message: "It works.",
      notification_type: "info",
      priority: "low",
      metadata: {},
      created_at: "2026-11-23T08:00:00Z",
      read: false,
      ...more,
    },
  });

  it("keep the server's id and what was read, and count what was not", () => {
    hear(note("a"));
    hear(note("b"));
    hear(note("c", { read: true }));
    expect(data().unreadCount).toBe(2);
    data().markNotificationRead("a");
    hear(note("a")); // comes again
    expect(data().notifications.map((n) => [n.id, n.read])).toEqual([
      ["a", true],
      ["c", true],
      ["b", false],
    ]);
    expect(data().unreadCount).toBe(1);
    hear({ type: "notifications_marked_read", payload: { marked_read: ["b"] } });
    expect(data().unreadCount).toBe(0);
    data().dismissNotification("b");
    expect(data().notifications).toHaveLength(2);
    data().clearNotifications();
    expect(data().notifications).toEqual([]);
  });

  it("come with a budget alert, too", () => {
    hear({
      id: "m1",
      type: "BUDGET_ALERT",
      payload: { budget_id: "b1", budget_name: "Food", message: "90 % used", priority: "high" },
    });
    expect(data().notifications[0]).toMatchObject({
      id: "m1",
      title: "Food",
      message: "90 % used",
      type: "warning",
    });
    expect(data().budgetAlerts).toHaveLength(1);
    expect(data().budgets.b1?.message).toBe("90 % used");
  });
});

describe("messages", () => {
  it("have one action for each event type, but for heartbeats", () => {
    const covered = new Set<EventType>([...Object.values(ACTIONS), "PING", "PONG"]);
    expect(covered).toEqual(new Set(Object.keys(EVENTS)));
    for (const name of Object.keys(ACTIONS)) expect(data()).toHaveProperty(name);
  });

  it("fill their place", () => {
    const payload = { account_id: "a1", goal_id: "g1", insight_id: "i1", priority: "low" };
    const places = {
      GOAL_PROGRESS_UPDATE: "goalUpdates",
      GOAL_ACHIEVED: "goalCompletions",
      ACCOUNT_SYNCED: "accountSyncs",
      AI_INSIGHT_GENERATED: "insights",
      SYSTEM_ALERT: "systemAlerts",
    } as const;
    for (const [type, place] of Object.entries(places)) {
      hear({ id: type, type, payload });
      hear({ id: type, type, payload }); // comes again
      expect(data()[place]).toHaveLength(1);
    }
    hear({ type: "ACCOUNT_SYNC_ERROR", payload });
    hear({ type: "SPENDING_PATTERN_DETECTED", payload });
    hear({ type: "BALANCE_UPDATE", payload: { account_id: "a1", new_balance_cents: 1 } });
    hear({ type: "BALANCE_UPDATE", payload: { account_id: "a1", new_balance_cents: 2 } });
    expect(data().accountSyncs.map((s) => s.payload.kind)).toEqual(["failed", "synced"]);
    expect(data().insights.map((s) => s.payload.kind)).toEqual(["pattern", "insight"]);
    expect(data().balances).toEqual({ a1: { account_id: "a1", new_balance_cents: 2 } });
    data().clear();
    expect(data().insights).toEqual([]);
  });

  it("of unknown types are kept apart, text is read, and what is no message is refused", () => {
    expect(hear('{"type":"net_worth_update","payload":{"x":1}}')).toBe(true);
    expect(hear({ type: "NOTIFICATION" })).toBe(true); // without a payload
    expect(hear({ type: "constructor", payload: {} })).toBe(true);
    expect(hear({ type: "connection_stats", payload: {} })).toBe(true);
    for (const bad of ["{", null, 3, [], {}, { type: 3 }, undefined]) expect(hear(bad)).toBe(false);
    expect(data().unknownMessages.map((m) => m.type)).toEqual([
      "constructor",
      "NOTIFICATION",
      "net_worth_update",
    ]);
    expect(hear({ type: "transaction_deleted", data: { id: "x" } })).toBe(true);
    expect(data().transactionUpdates).toHaveLength(1);
  });
});

describe("a bound store", () => {
  it("follows the connection, and tells the server what was read", async () => {
    vi.useFakeTimers();
    FakeSocket.reset();
    const client = new BelfryClient({
      url: "ws://gateway/ws",
      getToken: () => fakeToken("alice"),
      WebSocket: FakeWebSocket,
      share: false,
    });
    const unbind = bindStore(client, store);
    client.connect();
    expect(data().connectionStatus).toEqual({ status: "connecting", reconnectAttempts: 0 });
    await vi.advanceTimersByTimeAsync(0);
    FakeSocket.last.accept();
    expect(data().isConnected).toBe(true);
    FakeSocket.last.event("n1", "NOTIFICATION", { payload: { title: "x", read: false } });
    FakeSocket.last.event("n1", "NOTIFICATION", { payload: { title: "x", read: false } });
    expect(data().notifications).toHaveLength(1);
    data().markAllNotificationsRead();
    data().markAllNotificationsRead();
    expect(FakeSocket.last.sentOf("mark_notification_read").map((m) => m.payload)).toEqual([
      { notification_ids: ["n1"] },
    ]);
    FakeSocket.last.lose();
    expect(data().isConnected).toBe(false);
    unbind();
    client.close();
    expect(data().connectionStatus.status).toBe("connecting"); // as it was
    vi.useRealTimers();
  });
});
