// What each event does to the data. Pure: a reducer gives what changes.

import type { BelfryMessage, EventPayloads, EventType, SyncInfo } from "belfry-client";
import type {
  Dashboard,
  Entry,
  RealtimeData,
  StoredNotification,
  Transaction,
  TransactionUpdate,
} from "./types.js";

export const LIMIT = 50;

type Change = Partial<RealtimeData>;
/** As much of a message as a reducer needs. */
export interface Context {
  id: string;
  timestamp: string;
  sync: SyncInfo | null;
}
type Reducer<Payload> = (data: RealtimeData, payload: Payload, context: Context) => Change;

let made = 0;

export function contextOf(message?: Partial<BelfryMessage>): Context {
  return {
    id: message?.id ?? `local-${++made}`,
    timestamp: message?.timestamp ?? new Date().toISOString(),
    sync: message?.sync ?? null,
  };
}

function prepend<T extends { id: string }>(list: readonly T[], item: T): T[] {
  return [item, ...list.filter((other) => other.id !== item.id)].slice(0, LIMIT);
}

function entry<P>({ id, timestamp }: Context, payload: P): Entry<P> {
  return { id, timestamp, payload };
}

export function withNotifications(notifications: StoredNotification[]): Change {
  return { notifications, unreadCount: notifications.filter((n) => !n.read).length };
}

function noted(data: RealtimeData, update: TransactionUpdate): Change {
  return { transactionUpdates: [update, ...data.transactionUpdates].slice(0, LIMIT) };
}

/** What a snapshot tells is older than what came live: it fills the end of the list. */
function withSnapshot(data: RealtimeData, dashboard: Dashboard): Change {
  const recent = dashboard.recent_transactions ?? dashboard.recentTransactions;
  const known = new Set(data.recentTransactions.map((t) => t.id));
  const deleted = new Set(
    data.transactionUpdates.filter((u) => u.kind === "deleted").map((u) => u.id),
  );
  const more = (Array.isArray(recent) ? (recent as Transaction[]) : []).filter(
    (t) => typeof t?.id === "string" && !known.has(t.id) && !deleted.has(t.id),
  );
  const recentTransactions = [...data.recentTransactions, ...more].slice(0, LIMIT);
  return { dashboard, ...(more.length ? { recentTransactions } : {}) };
}

export const REDUCERS: { [T in EventType]: Reducer<EventPayloads[T]> } = {
  NEW_TRANSACTION: (data, payload, { timestamp }) => ({
    recentTransactions: prepend(data.recentTransactions, payload),
    ...noted(data, { kind: "created", id: payload.id, at: timestamp, transaction: payload }),
  }),

  TRANSACTION_UPDATED: (data, payload, { timestamp }) => ({
    recentTransactions: data.recentTransactions.map((t) =>
      t.id === payload.id ? { ...t, ...payload } : t,
    ),
    ...noted(data, { kind: "updated", id: payload.id, at: timestamp, transaction: payload }),
  }),

  TRANSACTION_DELETED: (data, payload, { timestamp }) => ({
    recentTransactions: data.recentTransactions.filter((t) => t.id !== payload.id),
    ...noted(data, { kind: "deleted", id: payload.id, at: timestamp }),
  }),

  BULK_TRANSACTIONS_IMPORTED: (data, payload, { id, timestamp }) =>
    noted(data, {
      kind: "imported",
      id,
      at: timestamp,
      count: payload.transaction_count,
      accountName: payload.account_name,
    }),

  BUDGET_ALERT: (data, payload, context) => ({
    budgetAlerts: prepend(data.budgetAlerts, entry(context, payload)),
    budgets: { ...data.budgets, [payload.budget_id]: payload },
    ...withNotifications(
      prepend(data.notifications, {
        id: context.id,
        title: payload.budget_name,
        message: payload.message,
        type: "warning",
        priority: payload.priority,
        actionUrl: null,
        metadata: { budget_id: payload.budget_id },
        createdAt: context.timestamp,
        read: false,
      }),
    ),
  }),

  BUDGET_UPDATED: (data, payload) => ({
    budgets: { ...data.budgets, [payload.budget_id]: payload },
  }),

  GOAL_PROGRESS_UPDATE: (data, payload, context) => ({
    goalUpdates: prepend(data.goalUpdates, entry(context, payload)),
  }),

  GOAL_ACHIEVED: (data, payload, context) => ({
    goalCompletions: prepend(data.goalCompletions, entry(context, payload)),
  }),

  ACCOUNT_SYNCED: (data, payload, context) => ({
    accountSyncs: prepend(data.accountSyncs, entry(context, { kind: "synced", ...payload })),
  }),

  ACCOUNT_SYNC_ERROR: (data, payload, context) => ({
    accountSyncs: prepend(data.accountSyncs, entry(context, { kind: "failed", ...payload })),
  }),

  BALANCE_UPDATE: (data, payload) => ({
    balances: { ...data.balances, [payload.account_id]: payload },
  }),

  AI_INSIGHT_GENERATED: (data, payload, context) => ({
    insights: prepend(data.insights, entry(context, { kind: "insight", ...payload })),
  }),

  SPENDING_PATTERN_DETECTED: (data, payload, context) => ({
    insights: prepend(data.insights, entry(context, { kind: "pattern", ...payload })),
  }),

  DASHBOARD_UPDATE: (data, payload) => withSnapshot(data, payload as Dashboard),

  FULL_SYNC: (data, payload, { sync }) => ({
    ...(Object.keys(payload).length ? withSnapshot(data, payload as Dashboard) : {}),
    ...(sync ? { sync } : {}),
  }),

  NOTIFICATION: (data, payload, { id, timestamp }) => {
    const before = data.notifications.find((n) => n.id === id);
    return withNotifications(
      prepend(data.notifications, {
        id,
        title: payload.title,
        message: payload.message,
        type: payload.notification_type,
        priority: payload.priority,
        actionUrl: payload.action_url ?? null,
        metadata: payload.metadata ?? {},
        createdAt: payload.created_at ?? timestamp,
        read: payload.read || (before?.read ?? false),
      }),
    );
  },

  SYSTEM_ALERT: (data, payload, context) => ({
    systemAlerts: prepend(data.systemAlerts, entry(context, payload)),
  }),

  PING: () => ({}),
  PONG: () => ({}),
};

export function markRead(data: RealtimeData, ids: readonly string[] | null): Change {
  const marked = ids && new Set(ids);
  return withNotifications(
    data.notifications.map((n) => (!n.read && (!marked || marked.has(n.id)) ? { ...n, read: true } : n)),
  );
}
