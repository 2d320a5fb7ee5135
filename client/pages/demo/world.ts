// A small household whose money moves. What happens in it becomes events, as a backend would write
// them; the state goes into the snapshot, so that a reload of the page goes on from there.

import type { EventPayloads, EventType } from "belfry-client";

export interface Event<T extends EventType = EventType> {
  type: T;
  payload: EventPayloads[T];
}

interface Budget {
  id: string;
  name: string;
  limit: number;
  spent: number;
}

export interface World {
  accounts: { id: string; name: string; cents: number }[];
  budgets: Budget[];
  goals: { id: string; name: string; target: number; saved: number }[];
  income: number;
  spending: number;
}

const START: World = {
  accounts: [
    { id: "a-main", name: "Main account", cents: 384_250 },
    { id: "a-card", name: "Credit card", cents: -41_890 },
    { id: "a-save", name: "Savings", cents: 1_256_000 },
  ],
  budgets: [
    { id: "b-food", name: "Groceries", limit: 60_000, spent: 31_240 },
    { id: "b-out", name: "Eating out", limit: 25_000, spent: 17_420 },
    { id: "b-move", name: "Transport", limit: 15_000, spent: 4_980 },
    { id: "b-fun", name: "Leisure", limit: 20_000, spent: 9_050 },
  ],
  goals: [
    { id: "g-trip", name: "A week in Lisbon", target: 180_000, saved: 96_000 },
    { id: "g-bike", name: "New bicycle", target: 120_000, saved: 88_000 },
  ],
  income: 412_000,
  spending: 96_690,
};

const SHOPS: Record<string, [string, number][]> = {
  "b-food": [["Green Basket", 3200], ["Corner Bakery", 640], ["Market Hall", 2150], ["Dairy & Sons", 880]],
  "b-out": [["Noodle House", 1650], ["Café Amsel", 720], ["Trattoria Lina", 3480], ["Falafel Stop", 890]],
  "b-move": [["City Transit", 320], ["Rail Ticket", 2990], ["Bike Repair", 2400]],
  "b-fun": [["Book Nook", 1890], ["Cinema Lux", 1250], ["Vinyl & More", 2490]],
};

const pick = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T;
const now = () => new Date().toISOString();
const newId = (prefix: string) => `${prefix}-${crypto.randomUUID().slice(0, 8)}`;
const money = (cents: number) => `€${(cents / 100).toFixed(2)}`;

let world: World = structuredClone(START);

export function restore(saved: unknown): void {
  if (typeof saved === "object" && saved !== null && "accounts" in saved) world = saved as World;
}

function priorityOf(percent: number) {
  if (percent >= 100) return "critical" as const;
  return percent >= 90 ? ("high" as const) : percent >= 75 ? ("medium" as const) : ("low" as const);
}

function budgetPayload(b: Budget): EventPayloads["BUDGET_UPDATED"] {
  const percent = Math.round((b.spent / b.limit) * 1000) / 10;
  return {
    budget_id: b.id,
    budget_name: b.name,
    category_name: b.name,
    amount_cents: b.limit,
    spent_cents: b.spent,
    remaining_cents: b.limit - b.spent,
    percentage_used: percent,
    alert_type: percent >= 100 ? "exceeded" : percent >= 80 ? "warning" : "info",
    priority: priorityOf(percent),
    message:
      percent >= 100
        ? `${b.name} is over its budget by ${money(b.spent - b.limit)}.`
        : `${Math.round(percent)} % of ${b.name} is spent: ${money(b.limit - b.spent)} left.`,
    period: "monthly",
    threshold_reached: percent >= 80,
  };
}

function moveBalance(id: string, cents: number): Event<"BALANCE_UPDATE"> {
  const account = world.accounts.find((a) => a.id === id) ?? (world.accounts[0] as World["accounts"][0]);
  const before = account.cents;
  account.cents += cents;
  return {
    type: "BALANCE_UPDATE",
    payload: {
      account_id: account.id,
      account_name: account.name,
      old_balance_cents: before,
      new_balance_cents: account.cents,
      change_cents: cents,
      updated_at: now(),
    },
  };
}

function transaction(
  cents: number,
  description: string,
  category: { id: string; name: string },
  accountId: string,
): Event<"NEW_TRANSACTION"> {
  return {
    type: "NEW_TRANSACTION",
    payload: {
      id: newId("t"),
      amount_cents: cents,
      description,
      merchant: description,
      category_id: category.id,
      category_name: category.name,
      account_id: accountId,
      account_name: world.accounts.find((a) => a.id === accountId)?.name ?? null,
      transaction_date: now(),
      created_at: now(),
      is_income: cents > 0,
    },
  };
}

/** Everything that follows from a purchase. */
export function spend(budget: Budget = pick(world.budgets)): Event[] {
  const [shop, usual] = pick(SHOPS[budget.id] ?? [["Somewhere", 1000]]);
  const cents = Math.round(usual * (0.6 + Math.random() * 0.9));
  const before = budget.spent / budget.limit;
  budget.spent += cents;
  world.spending += cents;
  const after = budget.spent / budget.limit;
  const account = Math.random() < 0.5 ? "a-main" : "a-card";
  const crossed = [0.75, 0.9, 1].some((line) => before < line && after >= line);
  return [
    transaction(-cents, shop, budget, account),
    moveBalance(account, -cents),
    { type: crossed ? "BUDGET_ALERT" : "BUDGET_UPDATED", payload: budgetPayload(budget) },
    snapshot(),
  ];
}

export function earn(): Event[] {
  const [what, cents] = pick<[string, number]>([["Salary", 206_000], ["Refund", 4_990], ["Sold a guitar", 18_000]]);
  world.income += cents;
  return [
    transaction(cents, what, { id: "c-in", name: "Income" }, "a-main"),
    moveBalance("a-main", cents),
    snapshot(),
  ];
}

export function save(): Event[] {
  const goal = pick(world.goals.filter((g) => g.saved < g.target)) ?? world.goals[0];
  if (!goal) return [];
  goal.saved = Math.min(goal.target, goal.saved + 5_000 + Math.round(Math.random() * 90) * 100);
  const percent = Math.round((goal.saved / goal.target) * 1000) / 10;
  const events: Event[] = [
    {
      type: "GOAL_PROGRESS_UPDATE",
      payload: {
        goal_id: goal.id,
        goal_name: goal.name,
        target_amount_cents: goal.target,
        current_amount_cents: goal.saved,
        remaining_cents: goal.target - goal.saved,
        progress_percentage: percent,
        target_date: null,
        is_achieved: percent >= 100,
        milestone_reached: percent >= 50 && percent < 75,
      },
    },
  ];
  if (percent >= 100) {
    events.push({
      type: "GOAL_ACHIEVED",
      payload: {
        goal_id: goal.id,
        goal_name: goal.name,
        target_amount_cents: goal.target,
        achieved_amount_cents: goal.saved,
        achievement_date: now(),
        celebration_message: `${goal.name}: done. You saved ${money(goal.saved)}.`,
        priority: "high",
      },
    });
    goal.saved = Math.round(goal.target * 0.3); // and on to the next one
  }
  return [...events, snapshot()];
}

export function snapshot(): Event<"DASHBOARD_UPDATE"> {
  const limit = world.budgets.reduce((sum, b) => sum + b.limit, 0);
  const spent = world.budgets.reduce((sum, b) => sum + b.spent, 0);
  return {
    type: "DASHBOARD_UPDATE",
    payload: {
      total_balance: world.accounts.reduce((sum, a) => sum + a.cents, 0) / 100,
      monthly_income: world.income / 100,
      monthly_spending: world.spending / 100,
      budget_utilization: Math.round((spent / limit) * 100),
      active_goals: world.goals.map((g) => ({ id: g.id, name: g.name, target: g.target, saved: g.saved })),
      account_summary: world.accounts.map((a) => ({ id: a.id, name: a.name, cents: a.cents })),
      recent_transactions: [],
      spending_by_category: world.budgets.map((b) => budgetPayload(b)),
      updated_at: now(),
      demo_world: structuredClone(world),
    } as EventPayloads["DASHBOARD_UPDATE"],
  };
}

/** The newest month begins. */
export function nextMonth(): Event[] {
  for (const budget of world.budgets) budget.spent = Math.round(budget.limit * Math.random() * 0.3);
  world.spending = world.budgets.reduce((sum, b) => sum + b.spent, 0);
  return [
    ...world.budgets.map((b): Event => ({ type: "BUDGET_UPDATED", payload: budgetPayload(b) })),
    snapshot(),
  ];
}

/** Single events, for the buttons; those that need something that is there are given it. */
export const SINGLE: Record<string, (last: EventPayloads["NEW_TRANSACTION"] | undefined) => Event[]> = {
  "Purchase": () => spend(),
  "Income": () => earn(),
  "Save for a goal": () => save(),
  "Change the last": (last) =>
    last ? [{ type: "TRANSACTION_UPDATED", payload: { ...last, description: `${last.description} (shared)` } }] : [],
  "Delete the last": (last) => (last ? [{ type: "TRANSACTION_DELETED", payload: { id: last.id } }] : []),
  "Import": () => [
    {
      type: "BULK_TRANSACTIONS_IMPORTED",
      payload: { account_id: "a-card", account_name: "Credit card", transaction_count: 12, imported_at: now() },
    },
  ],
  "Bank sync": () => [
    {
      type: "ACCOUNT_SYNCED",
      payload: {
        account_id: "a-save",
        account_name: "Savings",
        transactions_added: 3,
        balance_updated: true,
        new_balance_cents: world.accounts[2]?.cents ?? 0,
        sync_duration_ms: 840,
        synced_at: now(),
        success: true,
      },
    },
  ],
  "Sync error": () => [
    {
      type: "ACCOUNT_SYNC_ERROR",
      payload: {
        account_id: "a-card",
        account_name: "Credit card",
        error_message: "The bank asks to sign in again.",
        error_code: "LOGIN_REQUIRED",
        retry_suggested: true,
        failed_at: now(),
        priority: "high",
      },
    },
  ],
  "Insight": () => [
    {
      type: "AI_INSIGHT_GENERATED",
      payload: {
        insight_id: newId("i"),
        ...pick([
          { title: "Two streaming plans", description: "You pay for two video services; one was not used this month." },
          { title: "Cheaper electricity", description: "Households like yours pay about €14 less a month." },
          { title: "Room to save", description: "At this pace €310 are left at the end of the month." },
        ]),
        insight_type: "saving",
        data: {},
        confidence_score: 0.86,
        actionable: true,
        action_items: ["Have a look"],
        priority: "medium",
        generated_at: now(),
      },
    },
  ],
  "Pattern": () => [
    {
      type: "SPENDING_PATTERN_DETECTED",
      payload: {
        pattern_type: "recurring",
        category: "Eating out",
        description: "Lunch out on most Thursdays, about €17 each time.",
        amount_cents: 1_700,
        frequency: "weekly",
        confidence: 0.91,
        suggestion: "Cook double on Wednesdays.",
        detected_at: now(),
      },
    },
  ],
  "Notification": () => [
    {
      type: "NOTIFICATION",
      payload: {
        id: newId("n"),
        ...pick([
          { title: "Statement ready", message: "Your statement for October can be read.", notification_type: "info" as const },
          { title: "Payment received", message: "Rent share from Kim arrived.", notification_type: "success" as const },
          { title: "New sign-in", message: "From a phone that was not seen before.", notification_type: "warning" as const },
        ]),
        priority: "medium",
        action_url: null,
        metadata: {},
        created_at: now(),
        read: false,
      },
    },
  ],
  "System alert": () => [
    {
      type: "SYSTEM_ALERT",
      payload: {
        alert_type: "maintenance",
        message: "Transfers pause tonight from 2 to 3.",
        priority: "medium",
        system_wide: true,
        created_at: now(),
      },
    },
  ],
  "New month": () => nextMonth(),
};
