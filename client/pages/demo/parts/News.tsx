// Notifications, alerts, insights.

import { useAccountSyncs, useInsights, useNotifications, useRealtimeStore, useSystemAlerts, useUnreadCount } from "belfry-client/store";
import { clock } from "../format.js";
import { Card, Empty } from "../../shared/Card.js";
import { Icon } from "./Icon.js";

export function Notifications() {
  const notifications = useNotifications();
  const unread = useUnreadCount();
  const { markNotificationRead, markAllNotificationsRead, dismissNotification } = useRealtimeStore.getState();
  return (
    <Card
      title="Notifications"
      aside={
        unread > 0 ? (
          <button type="button" className="small" onClick={markAllNotificationsRead}>
            Mark {unread} read
          </button>
        ) : undefined
      }
    >
      {notifications.length === 0 && <Empty>All quiet.</Empty>}
      <ul className="plain" aria-live="polite">
        {notifications.slice(0, 4).map((n) => (
          <li key={n.id} className={`news ${n.type} ${n.read ? "read" : ""}`}>
            <button
              type="button"
              className="news-body"
              onClick={() => markNotificationRead(n.id)}
              aria-label={`${n.title}: ${n.message}${n.read ? "" : ". Mark read"}`}
            >
              <span className="row-title">{n.title}</span>
              <span className="row-note">{n.message}</span>
            </button>
            <button type="button" className="cross" aria-label={`Dismiss ${n.title}`} onClick={() => dismissNotification(n.id)}>
              ×
            </button>
          </li>
        ))}
      </ul>
    </Card>
  );
}

export function Insights() {
  const insights = useInsights();
  const syncs = useAccountSyncs();
  const sync = syncs[0];
  return (
    <Card title="Insights">
      {insights.length === 0 && !sync && <Empty>Something will turn up.</Empty>}
      <ul className="plain">
        {insights.slice(0, 3).map(({ id, payload }) => (
          <li key={id} className="news info">
            <span className="news-body">
              <span className="row-title with-icon">
                <Icon name={payload.kind === "insight" ? "bulb" : "loop"} />
                {payload.kind === "insight" ? payload.title : payload.category}
              </span>
              <span className="row-note">
                {payload.description}{payload.kind === "pattern" && ` ${payload.suggestion}`}
              </span>
            </span>
          </li>
        ))}
        {sync && (
          <li className={`news ${sync.payload.kind === "failed" ? "error" : "success"}`} key={sync.id}>
            <span className="news-body">
              <span className="row-title">{sync.payload.account_name}</span>
              <span className="row-note">
                {sync.payload.kind === "failed"
                  ? sync.payload.error_message
                  : `In step with the bank: ${sync.payload.transactions_added} new, ${clock(sync.payload.synced_at)}.`}
              </span>
            </span>
          </li>
        )}
      </ul>
    </Card>
  );
}

export function SystemAlerts() {
  const alert = useSystemAlerts()[0];
  const dismiss = useRealtimeStore.getState().dismissSystemAlert;
  if (!alert) return null;
  return (
    <div className="alert" role="alert">
      <Icon name="horn" />
      <span>{alert.payload.message}</span>
      <button type="button" className="cross" aria-label="Dismiss" onClick={() => dismiss(alert.id)}>×</button>
    </div>
  );
}
