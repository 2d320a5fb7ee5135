import type { EventPayloads, SyncInfo, Status } from "belfry-client";

export type Transaction = EventPayloads["NEW_TRANSACTION"];
export type Dashboard = Partial<EventPayloads["DASHBOARD_UPDATE"]> & Record<string, unknown>;
export type Insight =
  | ({ kind: "insight" } & EventPayloads["AI_INSIGHT_GENERATED"])
  | ({ kind: "pattern" } & EventPayloads["SPENDING_PATTERN_DETECTED"]);

/** What was kept of a message beside its payload. */
export interface Entry<Payload> {
  /** Id of the message: the server's, where it has one. */
  id: string;
  /** ISO 8601. */
  timestamp: string;
  payload: Payload;
}

export interface StoredNotification {
  /** Id of the message: what `mark_notification_read` takes. */
  id: string;
  title: string;
  message: string;
  type: EventPayloads["NOTIFICATION"]["notification_type"];
  priority: EventPayloads["NOTIFICATION"]["priority"];
  actionUrl: string | null;
  metadata: Record<string, unknown>;
  createdAt: string;
  read: boolean;
}

export type TransactionUpdate =
  | { kind: "created" | "updated"; id: string; at: string; transaction: Transaction }
  | { kind: "deleted"; id: string; at: string }
  | { kind: "imported"; id: string; at: string; count: number; accountName: string };

export type AccountSync =
  | ({ kind: "synced" } & EventPayloads["ACCOUNT_SYNCED"])
  | ({ kind: "failed" } & EventPayloads["ACCOUNT_SYNC_ERROR"]);

/** Everything newest first, at most 50 of each. */
export interface RealtimeData {
  isConnected: boolean;
  connectionStatus: { status: Status; reconnectAttempts: number };
  recentTransactions: Transaction[];
  transactionUpdates: TransactionUpdate[];
  notifications: StoredNotification[];
  /** Of the notifications here, those not read. */
  unreadCount: number;
  budgetAlerts: Entry<EventPayloads["BUDGET_ALERT"]>[];
  /** The newest state of each budget, by its id. */
  budgets: Record<string, EventPayloads["BUDGET_UPDATED"]>;
  goalUpdates: Entry<EventPayloads["GOAL_PROGRESS_UPDATE"]>[];
  goalCompletions: Entry<EventPayloads["GOAL_ACHIEVED"]>[];
  accountSyncs: Entry<AccountSync>[];
  /** The newest balance of each account, by its id. */
  balances: Record<string, EventPayloads["BALANCE_UPDATE"]>;
  insights: Entry<Insight>[];
  dashboard: Dashboard | null;
  systemAlerts: Entry<EventPayloads["SYSTEM_ALERT"]>[];
  /** Of the last FULL_SYNC. */
  sync: SyncInfo | null;
  /** Messages of types that this store does not know. */
  unknownMessages: Record<string, unknown>[];
}
