// @vitest-environment jsdom
import { StrictMode, act, useState } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BelfryClient } from "belfry-client";
import { BelfryProvider, useBelfryEvent, useWebSocket, type UseWebSocket } from "belfry-client/react";
import { FakeSocket, FakeWebSocket, fakeToken } from "./fake-socket.js";

let root: Root | null = null;
let client: BelfryClient;
let place: HTMLElement;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  FakeSocket.reset();
  place = document.createElement("div");
  client = new BelfryClient({
    url: "ws://gateway/ws",
    getToken: () => fakeToken("alice"),
    WebSocket: FakeWebSocket,
    share: false,
  });
});

afterEach(async () => {
  await act(async () => root?.unmount());
  root = null;
  client.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = (ms = 0) => act(() => vi.advanceTimersByTimeAsync(ms));
const render = (what: React.ReactNode) =>
  act(async () => {
    root ??= createRoot(place);
    root.render(what);
  });

let last: UseWebSocket;
let heard: string[] = [];
let rerender: () => void = () => {};

function Badge({ name = "badge" }: { name?: string }) {
  const [count, setCount] = useState(0);
  rerender = () => setCount((n) => n + 1);
  last = useWebSocket({ onMessage: (m) => heard.push(`${name} ${count} ${m.id}`) });
  return (
    <p>
      {name} {last.isConnected ? "on" : last.isConnecting ? "connecting" : "off"}
    </p>
  );
}

describe("useWebSocket", () => {
  beforeEach(() => {
    heard = [];
  });

  it("opens one socket for all components, under StrictMode, over re-renders", async () => {
    await render(
      <StrictMode>
        <BelfryProvider client={client}>
          <Badge name="one" />
          <Badge name="two" />
        </BelfryProvider>
      </StrictMode>,
    );
    await pass();
    expect(place.textContent).toBe("one connectingtwo connecting");
    await act(async () => FakeSocket.last.accept());
    expect(place.textContent).toBe("one ontwo on");
    for (let i = 0; i < 5; i++) await act(async () => rerender());
    await pass(1_000);
    expect(FakeSocket.all).toHaveLength(1);
    expect(FakeSocket.last.isClosed).toBe(false);
  });

  it("calls the newest onMessage, once for each message", async () => {
    await render(
      <StrictMode>
        <BelfryProvider client={client}>
          <Badge />
        </BelfryProvider>
      </StrictMode>,
    );
    await pass();
    await act(async () => FakeSocket.last.accept());
    heard = [];
    await act(async () => FakeSocket.last.event("a"));
    await act(async () => rerender());
    await act(async () => FakeSocket.last.event("b"));
    await act(async () => FakeSocket.last.event("b"));
    expect(heard).toEqual(["badge 0 a", "badge 1 b"]);
  });

  it("tells of errors, and takes commands with functions that stay the same", async () => {
    await render(<BelfryProvider client={client}><Badge /></BelfryProvider>);
    await pass();
    await act(async () => FakeSocket.last.accept());
    const { refreshDashboard } = last;
    await act(async () => rerender());
    expect(last.refreshDashboard).toBe(refreshDashboard);
    act(() => void last.refreshDashboard());
    act(() => void last.markNotificationsRead(["n1"]));
    const end = last.subscribe(["BUDGET_ALERT"]);
    end();
    expect(FakeSocket.last.sent.map((m) => m.type).slice(1)).toEqual([
      "dashboard_refresh",
      "mark_notification_read",
      "subscribe",
      "unsubscribe",
    ]);
    await act(async () => FakeSocket.last.lose(4003, "closed by an administrator"));
    expect(last.isConnecting).toBe(false);
    expect(last.lastError?.reason).toBe("closed by an administrator");
    expect(last.connectionState.status).toBe("disconnected");
  });

  it("closes when the last component is gone, and not when one takes another's place", async () => {
    await render(<BelfryProvider client={client}><Badge key="a" /></BelfryProvider>);
    await pass();
    await render(<BelfryProvider client={client}><Badge key="b" /></BelfryProvider>);
    await pass(1_000);
    expect(FakeSocket.all).toHaveLength(1);
    expect(FakeSocket.last.isClosed).toBe(false);
    await render(null);
    await pass(1_000);
    expect(FakeSocket.last.isClosed).toBe(true);
  });

  it("renders on a server without a socket, and hydrates without a complaint", async () => {
    const app = <BelfryProvider client={client}><Badge /></BelfryProvider>;
    const html = renderToString(app);
    expect(html).toContain("off");
    expect(FakeSocket.all).toHaveLength(0);
    const complaints = vi.spyOn(console, "error");
    place.innerHTML = html;
    await act(async () => {
      root = hydrateRoot(place, app);
    });
    await pass();
    expect(FakeSocket.all).toHaveLength(1);
    expect(complaints).not.toHaveBeenCalled();
  });
});

describe("useBelfryEvent", () => {
  it("hears one type", async () => {
    const ids: (string | undefined)[] = [];
    function Listener() {
      useBelfryEvent("budget_alert", (m) => ids.push(m.payload.budget_id));
      useWebSocket();
      return null;
    }
    await render(<BelfryProvider client={client}><Listener /></BelfryProvider>);
    await pass();
    await act(async () => FakeSocket.last.accept());
    await act(async () => FakeSocket.last.event("a", "NOTIFICATION"));
    await act(async () => FakeSocket.last.event("b", "BUDGET_ALERT", { payload: { budget_id: "x" } }));
    expect(ids).toEqual(["x"]);
  });
});
