import { BelfryProvider } from "belfry-client/react";
import { client, token } from "./belfry.js";
import { AskForToken } from "./parts/AskForToken.js";
import { Accounts, Budgets, Goals } from "./parts/Budgets.js";
import { ConnectionBadge } from "./parts/Connection.js";
import { BreakThings, EventButtons } from "./parts/Controls.js";
import { Figures } from "./parts/Figures.js";
import { Insights, Notifications, SystemAlerts } from "./parts/News.js";
import { ThemeSwitch } from "./parts/Theme.js";
import { Transactions } from "./parts/Transactions.js";

export function App() {
  if (!token) return <AskForToken />;
  return (
    <BelfryProvider client={client}>
      <div className="page">
        <header className="top">
          <div className="brand">
            <svg viewBox="0 0 32 32" aria-hidden="true">
              <rect width="32" height="32" rx="8" />
              <path d="M16 6a1.600 1.600 0 0 1 1.600 1.700A6.400 6.400 0 0 1 22.400 14v5l2 2.700H7.600l2-2.700v-5a6.400 6.400 0 0 1 4.800-6.300A1.600 1.600 0 0 1 16 6zm-2.600 17.400h5.200a2.600 2.600 0 0 1-5.200 0z" />
            </svg>
            <div>
              <h1>Belfry</h1>
              <p>Everything here arrives as an event. Break it, and see nothing get lost.</p>
            </div>
          </div>
          <ThemeSwitch />
          <ConnectionBadge />
        </header>
        <SystemAlerts />
        <main className="grid">
          <Figures />
          <Transactions />
          <Budgets />
          <Notifications />
          <Goals />
          <Insights />
          <Accounts />
          <EventButtons />
          <BreakThings />
        </main>
      </div>
    </BelfryProvider>
  );
}
