// A Zustand store that holds the state of the connection and the live data.

import { create, type StoreApi, type UseBoundStore } from "zustand";
import type { BelfryClient, EventPayloads, EventType, Status } from "belfry-client";
import { LIMIT, REDUCERS, contextOf, markRead, withNotifications, type Context } from "./reducers.js";
import type { RealtimeData } from "./types.js";

/** One action for each event. */
export const ACTIONS = {
  addTransaction: "NEW_TRANSACTION",
  updateTransaction: "TRANSACTION_UPDATED",
  deleteTransaction: "TRANSACTION_DELETED",
  importTransactions: "BULK_TRANSACTIONS_IMPORTED",
  addBudgetAlert: "BUDGET_ALERT",
  updateBudget: "BUDGET_UPDATED",
  updateGoal: "GOAL_PROGRESS_UPDATE",
  completeGoal: "GOAL_ACHIEVED",
  syncAccount: "ACCOUNT_SYNCED",
  failAccountSync: "ACCOUNT_SYNC_ERROR",
  updateBalance: "BALANCE_UPDATE",
  addInsight: "AI_INSIGHT_GENERATED",
  addSpendingPattern: "SPENDING_PATTERN_DETECTED",
  updateDashboard: "DASHBOARD_UPDATE",
  fullSync: "FULL_SYNC",
  addNotification: "NOTIFICATION",
  addSystemAlert: "SYSTEM_ALERT",
} as const satisfies Record<string, EventType>;

type EventActions = {
  [A in keyof typeof ACTIONS]: (
    payload: EventPayloads[(typeof ACTIONS)[A]],
    message?: Parameters<typeof contextOf>[0],
  ) => void;
};

export interface RealtimeActions extends EventActions {
  /** A message of the server, as an object or as text. False: it is none. */
  handleWebSocketMessage(message: unknown): boolean;
  updateConnectionStatus(status: Status, reconnectAttempts?: number): void;
  /** Here, and for all of the user's devices once a client is bound. */
  markNotificationRead(id: string): void;
  markAllNotificationsRead(): void;
  /** Out of the list. */
  dismissNotification(id: string): void;
  dismissBudgetAlert(id: string): void;
  dismissSystemAlert(id: string): void;
  dismissInsight(id: string): void;
  clearNotifications(): void;
  clearUnknownMessages(): void;
  /** All data; the connection's state stays. */
  clear(): void;
}

export type RealtimeState = RealtimeData & RealtimeActions;
export type RealtimeStore = UseBoundStore<StoreApi<RealtimeState>>;

const EMPTY = {
  recentTransactions: [],
  transactionUpdates: [],
  notifications: [],
  unreadCount: 0,
  budgetAlerts: [],
  budgets: {},
  goalUpdates: [],
  goalCompletions: [],
  accountSyncs: [],
  balances: {},
  insights: [],
  dashboard: null,
  systemAlerts: [],
  sync: null,
  unknownMessages: [],
} satisfies Partial<RealtimeData>;

/** Answers to commands: nothing that a dashboard shows. */
const REPLIES = new Set([
  "SUBSCRIPTION_CONFIRMED",
  "UNSUBSCRIPTION_CONFIRMED",
  "DASHBOARD_REFRESH_COMPLETED",
  "CONNECTION_STATS",
]);

const clients = new WeakMap<RealtimeStore, BelfryClient>();

function readMessage(given: unknown): Record<string, unknown> | null {
  let value = given;
  if (typeof value === "string") {
    try {
      value = JSON.parse(value);
    } catch {
      return null;
    }
  }
  return isObject(value) && typeof value.type === "string" ? value : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function createRealtimeStore(): RealtimeStore {
  const store: RealtimeStore = create<RealtimeState>()((set, get) => {
    const apply = (type: EventType, payload: object, context: Context) =>
      set((state) => (REDUCERS[type] as (...of: unknown[]) => object)(state, payload, context));

    const eventActions = Object.fromEntries(
      Object.entries(ACTIONS).map(([name, type]) => [
        name,
        (payload: object, message?: Parameters<typeof contextOf>[0]) =>
          apply(type, payload, contextOf(message)),
      ]),
    ) as unknown as EventActions;

    const tellServer = (ids: string[]) => {
      if (ids.length) clients.get(store)?.markNotificationsRead(ids);
    };
    const without = <T extends { id: string }>(list: T[], id: string) =>
      list.filter((item) => item.id !== id);

    return {
      ...EMPTY,
      isConnected: false,
      connectionStatus: { status: "disconnected", reconnectAttempts: 0 },
      ...eventActions,

      handleWebSocketMessage(given) {
        const message = readMessage(given);
        if (!message) return false;
        const type = (message.type as string).toUpperCase();
        // Some backends write `data` where `payload` belongs.
        const payload = message.payload ?? message.data;
        if (type === "NOTIFICATIONS_MARKED_READ" && isObject(payload)) {
          const ids = payload.marked_read;
          if (Array.isArray(ids)) set((state) => markRead(state, ids as string[]));
        } else if (Object.hasOwn(REDUCERS, type) && isObject(payload)) {
          apply(type as EventType, payload, contextOf(message as never));
        } else if (!REPLIES.has(type)) {
          set((state) => ({ unknownMessages: [message, ...state.unknownMessages].slice(0, LIMIT) }));
        }
        return true;
      },

      updateConnectionStatus: (status, reconnectAttempts = 0) =>
        set({ isConnected: status === "connected", connectionStatus: { status, reconnectAttempts } }),

      markNotificationRead(id) {
        const isUnread = get().notifications.some((n) => n.id === id && !n.read);
        set((state) => markRead(state, [id]));
        if (isUnread) tellServer([id]);
      },
      markAllNotificationsRead() {
        const ids = get().notifications.filter((n) => !n.read).map((n) => n.id);
        set((state) => markRead(state, null));
        tellServer(ids);
      },
      dismissNotification: (id) =>
        set((state) => withNotifications(without(state.notifications, id))),
      dismissBudgetAlert: (id) => set((state) => ({ budgetAlerts: without(state.budgetAlerts, id) })),
      dismissSystemAlert: (id) => set((state) => ({ systemAlerts: without(state.systemAlerts, id) })),
      dismissInsight: (id) => set((state) => ({ insights: without(state.insights, id) })),
      clearNotifications: () => set(withNotifications([])),
      clearUnknownMessages: () => set({ unknownMessages: [] }),
      clear: () => set(EMPTY),
    };
  });
  return store;
}

/** The store of an application that has one user at a time. */
export const useRealtimeStore: RealtimeStore = createRealtimeStore();

/** Feeds a store from a client. Returns what ends it. */
export function bindStore(client: BelfryClient, store: RealtimeStore = useRealtimeStore): () => void {
  const report = () => {
    const { status, attempts } = client.state;
    const before = store.getState().connectionStatus;
    if (before.status !== status || before.reconnectAttempts !== attempts)
      store.getState().updateConnectionStatus(status, attempts);
  };
  clients.set(store, client);
  report();
  const ends = [
    client.on("state", report),
    client.on("message", (message) => store.getState().handleWebSocketMessage(message)),
  ];
  return () => {
    for (const end of ends) end();
    if (clients.get(store) === client) clients.delete(store);
  };
}
