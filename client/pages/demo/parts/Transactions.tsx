import { useRecentTransactions } from "belfry-client/store";
import { clock, money } from "../format.js";
import { Card, Empty } from "../../shared/Card.js";
import { Icon, iconOf } from "./Icon.js";

const SHOWN = 10;

export function Transactions() {
  const transactions = useRecentTransactions();
  return (
    <Card title="Transactions" className="transactions" aside={<span className="count">{transactions.length}</span>}>
      {transactions.length === 0 && <Empty>Nothing yet. The first purchase appears here.</Empty>}
      <ol className="rows" aria-live="polite" aria-relevant="additions">
        {transactions.slice(0, SHOWN).map((t) => (
          <li key={t.id} className="row">
            <span className="tile"><Icon name={iconOf(t.category_id)} /></span>
            <span className="row-main">
              <span className="row-title">{t.description}</span>
              <span className="row-note">
                {[t.created_at && clock(t.created_at), t.category_name, t.account_name].filter(Boolean).join(" · ")}
              </span>
            </span>
            <span className={`amount ${t.is_income ? "plus" : ""}`}>
              {t.is_income ? "+" : ""}{money(t.amount_cents)}
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}
