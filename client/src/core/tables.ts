// Made by scripts/generate-tables.mjs from shared/events.def and shared/closes.def: edit those.

export type Priority = "low" | "medium" | "high" | "critical";
export type NotificationKind = "success" | "error" | "warning" | "info";

/** Payload of each event type. */
export interface EventPayloads {
  NEW_TRANSACTION: {
    id: string;
    amount_cents: number;
    description: string;
    merchant?: string | null;
    category_id?: string | null;
    category_name?: string | null;
    category_emoji?: string | null;
    account_id: string;
    account_name?: string | null;
    transaction_date: string;
    created_at?: string | null;
    is_income: boolean;
  };
  TRANSACTION_UPDATED: EventPayloads["NEW_TRANSACTION"];
  TRANSACTION_DELETED: {
    id: string;
  };
  BULK_TRANSACTIONS_IMPORTED: {
    account_id: string;
    account_name: string;
    transaction_count: number;
    imported_at: string;
  };
  BUDGET_ALERT: {
    budget_id: string;
    budget_name: string;
    category_name?: string | null;
    amount_cents: number;
    spent_cents: number;
    remaining_cents: number;
    percentage_used: number;
    alert_type: string;
    priority: Priority;
    message: string;
    period: string;
    threshold_reached: boolean;
  };
  BUDGET_UPDATED: EventPayloads["BUDGET_ALERT"];
  GOAL_PROGRESS_UPDATE: {
    goal_id: string;
    goal_name: string;
    target_amount_cents: number;
    current_amount_cents: number;
    remaining_cents: number;
    progress_percentage: number;
    target_date?: string | null;
    is_achieved: boolean;
    milestone_reached: boolean;
  };
  GOAL_ACHIEVED: {
    goal_id: string;
    goal_name: string;
    target_amount_cents: number;
    achieved_amount_cents: number;
    achievement_date: string;
    celebration_message: string;
    priority: Priority;
  };
  ACCOUNT_SYNCED: {
    account_id: string;
    account_name?: string | null;
    transactions_added: number;
    balance_updated: boolean;
    new_balance_cents?: number | null;
    sync_duration_ms?: number | null;
    synced_at: string;
    success: boolean;
  };
  ACCOUNT_SYNC_ERROR: {
    account_id: string;
    account_name?: string | null;
    error_message: string;
    error_code?: string | null;
    retry_suggested: boolean;
    failed_at: string;
    priority: Priority;
  };
  BALANCE_UPDATE: {
    account_id: string;
    account_name: string;
    old_balance_cents: number;
    new_balance_cents: number;
    change_cents: number;
    updated_at: string;
  };
  AI_INSIGHT_GENERATED: {
    insight_id: string;
    title: string;
    description: string;
    insight_type: string;
    data: unknown;
    confidence_score?: number | null;
    actionable: boolean;
    action_items: unknown[];
    priority: Priority;
    generated_at: string;
  };
  SPENDING_PATTERN_DETECTED: {
    pattern_type: string;
    category: string;
    description: string;
    amount_cents: number;
    frequency: string;
    confidence: number;
    suggestion: string;
    detected_at: string;
  };
  DASHBOARD_UPDATE: {
    total_balance?: number | null;
    monthly_spending?: number | null;
    monthly_income?: number | null;
    budget_utilization?: unknown | null;
    active_goals?: unknown | null;
    recent_transactions: unknown[];
    account_summary?: unknown | null;
    spending_by_category: unknown[];
    updated_at: string;
  };
  FULL_SYNC: Record<string, unknown>;
  NOTIFICATION: {
    id: string;
    title: string;
    message: string;
    notification_type: NotificationKind;
    priority: Priority;
    action_url?: string | null;
    metadata: Record<string, unknown>;
    created_at: string;
    read: boolean;
  };
  SYSTEM_ALERT: {
    alert_type: string;
    message: string;
    priority: Priority;
    system_wide: boolean;
    created_at: string;
  };
  PING: Record<string, unknown>;
  PONG: Record<string, unknown>;
}

/** What becomes of a message that Belfry's own writers write. */
export const EVENTS = {
  NEW_TRANSACTION: { group: "transaction", store: "list", conflate: "" },
  TRANSACTION_UPDATED: { group: "transaction", store: "list", conflate: "" },
  TRANSACTION_DELETED: { group: "transaction", store: "list", conflate: "" },
  BULK_TRANSACTIONS_IMPORTED: { group: "transaction", store: "list", conflate: "" },
  BUDGET_ALERT: { group: "budget", store: "list", conflate: "" },
  BUDGET_UPDATED: { group: "budget", store: "list", conflate: "" },
  GOAL_PROGRESS_UPDATE: { group: "goal", store: "list", conflate: "" },
  GOAL_ACHIEVED: { group: "goal", store: "list", conflate: "" },
  ACCOUNT_SYNCED: { group: "account", store: "list", conflate: "" },
  ACCOUNT_SYNC_ERROR: { group: "account", store: "list", conflate: "" },
  BALANCE_UPDATE: { group: "account", store: "list", conflate: "account_id" },
  AI_INSIGHT_GENERATED: { group: "insight", store: "list", conflate: "" },
  SPENDING_PATTERN_DETECTED: { group: "insight", store: "list", conflate: "" },
  DASHBOARD_UPDATE: { group: "dashboard", store: "snapshot", conflate: "*" },
  FULL_SYNC: { group: "dashboard", store: "none", conflate: "" },
  NOTIFICATION: { group: "system", store: "list", conflate: "" },
  SYSTEM_ALERT: { group: "system", store: "list", conflate: "" },
  PING: { group: "system", store: "none", conflate: "" },
  PONG: { group: "system", store: "none", conflate: "" },
} as const;

export type EventType = keyof EventPayloads;

export type Advice = "fault" | "later" | "limit" | "retry" | "slow" | "spread" | "stop" | "token";

/** Each close code of the protocol: the reason in its frame and what a client does then. */
export const CLOSES: Readonly<Record<number, { reason: string; advice: Advice }>> = {
  1001: { reason: "server shutting down", advice: "retry" },
  1002: { reason: "protocol error", advice: "fault" },
  1003: { reason: "binary not accepted", advice: "fault" },
  1007: { reason: "invalid UTF-8", advice: "fault" },
  1008: { reason: "rate limit", advice: "slow" },
  1009: { reason: "message too big", advice: "fault" },
  1011: { reason: "internal error", advice: "retry" },
  1012: { reason: "restarting", advice: "spread" },
  1013: { reason: "overloaded", advice: "later" },
  4001: { reason: "authentication failed", advice: "token" },
  4002: { reason: "token expired", advice: "token" },
  4003: { reason: "closed by an administrator", advice: "stop" },
  4008: { reason: "too slow", advice: "retry" },
  4029: { reason: "too many connections of this user", advice: "limit" },
};
