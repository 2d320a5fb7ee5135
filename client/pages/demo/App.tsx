import { BelfryProvider } from "belfry-client/react";
import { Brand } from "../shared/Brand.js";
import { ThemeSwitch } from "../shared/Theme.js";
import { TokenForm } from "../shared/TokenForm.js";
import { client, startWith, token } from "./belfry.js";
import { Accounts, Budgets, Goals } from "./parts/Budgets.js";
import { ConnectionBadge } from "./parts/Connection.js";
import { BreakThings, EventButtons } from "./parts/Controls.js";
import { Figures } from "./parts/Figures.js";
import { Insights, Notifications, SystemAlerts } from "./parts/News.js";
import { Transactions } from "./parts/Transactions.js";

export function App() {
  if (!token) {
    const note = <><code>belfryctl token --user you</code> makes one.</>;
    return <TokenForm label="A user's token" note={note} use={startWith} />;
  }
  return (
    <BelfryProvider client={client}>
      <div className="page">
        <header className="top">
          <Brand name="Belfry">Everything here arrives as an event. Break it, and see nothing get lost.</Brand>
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
