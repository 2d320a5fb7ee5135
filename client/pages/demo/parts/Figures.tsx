// The four numbers at the top.

import { useDashboard } from "belfry-client/store";
import { wholeMoney } from "../format.js";

export function Figures() {
  const dashboard = useDashboard();
  const figures: [string, string, string][] = [
    ["Balance", euros(dashboard?.total_balance), "all accounts"],
    ["Income", euros(dashboard?.monthly_income), "this month"],
    ["Spending", euros(dashboard?.monthly_spending), "this month"],
    ["Budgets used", typeof dashboard?.budget_utilization === "number" ? `${dashboard.budget_utilization} %` : "–", "of what was planned"],
  ];
  return (
    <dl className="figures">
      {figures.map(([name, value, note]) => (
        <div className="figure" key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
          <dd className="note">{note}</dd>
        </div>
      ))}
    </dl>
  );
}

function euros(value: number | null | undefined): string {
  return typeof value === "number" ? wholeMoney(value * 100) : "–";
}
