// Budgets, goals and accounts: what the snapshot knows, overwritten by what came since.

import { useMemo } from "react";
import { useBalances, useBudgets, useDashboard, useGoalCompletions, useGoalUpdates } from "belfry-client/store";
import { money, wholeMoney } from "../format.js";
import { Bar, Card, Empty } from "../../shared/Card.js";
import { Icon, iconOf } from "./Icon.js";

interface BudgetRow {
  budget_id: string;
  budget_name: string;
  amount_cents: number;
  spent_cents: number;
  remaining_cents: number;
  percentage_used: number;
}

function list<T>(value: unknown): T[] {
  return Array.isArray(value) ? (value as T[]) : [];
}

const toneOf = (percent: number) => (percent >= 100 ? "bad" : percent >= 80 ? "warn" : "good");

export function Budgets() {
  const snapshot = list<BudgetRow>(useDashboard()?.spending_by_category);
  const live = useBudgets();
  const rows = snapshot.map((row) => ({ ...row, ...live[row.budget_id] }));
  return (
    <Card title="Budgets">
      {rows.length === 0 && <Empty>No budget yet.</Empty>}
      <ul className="plain">
        {rows.map((b) => (
          <li key={b.budget_id} className="measure">
            <div className="measure-head">
              <span className="with-icon">
                <Icon name={iconOf(b.budget_id)} />
                {b.budget_name}
              </span>
              <span className="row-note">
                {b.remaining_cents >= 0 ? `${money(b.remaining_cents)} left` : `${money(-b.remaining_cents)} over`}
              </span>
            </div>
            <Bar percent={b.percentage_used} label={b.budget_name} tone={toneOf(b.percentage_used)} />
          </li>
        ))}
      </ul>
    </Card>
  );
}

export function Goals() {
  const snapshot = list<{ id: string; name: string; target: number; saved: number }>(useDashboard()?.active_goals);
  const updates = useGoalUpdates();
  const done = useGoalCompletions()[0];
  const newest = useMemo(() => {
    const map = new Map<string, number>();
    for (const { payload } of updates)
      if (!map.has(payload.goal_id)) map.set(payload.goal_id, payload.current_amount_cents);
    return map;
  }, [updates]);
  return (
    <Card title="Goals">
      {snapshot.length === 0 && <Empty>No goal yet.</Empty>}
      <ul className="plain">
        {snapshot.map((g) => {
          const saved = newest.get(g.id) ?? g.saved;
          return (
            <li key={g.id} className="measure">
              <div className="measure-head">
                <span>{g.name}</span>
                <span className="row-note">{wholeMoney(saved)} of {wholeMoney(g.target)}</span>
              </div>
              <Bar percent={(saved / g.target) * 100} label={g.name} tone="goal" />
            </li>
          );
        })}
      </ul>
      {done && <p className="cheer" key={done.id}><Icon name="star" /> {done.payload.celebration_message}</p>}
    </Card>
  );
}

export function Accounts() {
  const snapshot = list<{ id: string; name: string; cents: number }>(useDashboard()?.account_summary);
  const balances = useBalances();
  return (
    <Card title="Accounts">
      {snapshot.length === 0 && <Empty>No account yet.</Empty>}
      <ul className="plain">
        {snapshot.map((a) => {
          const live = balances[a.id];
          const cents = live?.new_balance_cents ?? a.cents;
          return (
            <li key={a.id} className="row">
              <span className="row-main">
                <span className="row-title">{a.name}</span>
                {live && (
                  <span className={`row-note ${live.change_cents > 0 ? "plus" : ""}`}>
                    {live.change_cents > 0 ? "+" : ""}{money(live.change_cents)}
                  </span>
                )}
              </span>
              <span className="amount" key={cents}>{money(cents)}</span>
            </li>
          );
        })}
      </ul>
    </Card>
  );
}
