// A WebSocket whose other side is the test.

import type { SocketConstructor } from "../../src/core/connection.js";

export class FakeSocket {
  static all: FakeSocket[] = [];
  static answersPings = true;
  static reset(): void {
    FakeSocket.all = [];
    FakeSocket.answersPings = true;
  }
  static get last(): FakeSocket {
    const last = FakeSocket.all.at(-1);
    if (!last) throw new Error("no socket was opened");
    return last;
  }

  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  sent: { type: string; payload: Record<string, unknown> }[] = [];
  isClosed = false;

  constructor(
    readonly url: string,
    readonly protocols?: string | string[],
  ) {
    FakeSocket.all.push(this);
  }

  send(text: string): void {
    const command = JSON.parse(text) as FakeSocket["sent"][number];
    this.sent.push(command);
    if (command.type === "ping" && FakeSocket.answersPings) this.pong();
  }

  pong(timestamp = new Date().toISOString()): void {
    this.receive({ type: "pong", payload: {}, timestamp });
  }

  close(): void {
    this.isClosed = true;
    this.readyState = 3;
  }

  /** Commands of a type that were sent. */
  sentOf(type: string) {
    return this.sent.filter((one) => one.type === type);
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.({} as never);
  }

  receive(message: object | string): void {
    const data = typeof message === "string" ? message : JSON.stringify(message);
    this.onmessage?.({ data } as never);
  }

  /** Open, authenticated, synchronised. */
  accept({ expiresAt = null as string | null, sync = {}, id = String(FakeSocket.all.length) } = {}) {
    this.open();
    this.receive({ type: "auth_ok", payload: { expires_at: expiresAt } });
    this.receive({
      type: "FULL_SYNC",
      timestamp: new Date().toISOString(),
      payload: {},
      sync: { recovered: true, missed: 0, unread: 0, last_id: null, connection_id: id, ...sync },
    });
  }

  event(id: string | undefined, type = "NOTIFICATION", more: object = {}): void {
    this.receive({ id, type, payload: {}, ...more });
  }

  lose(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason, wasClean: code !== 1006 } as never);
  }
}

export const FakeWebSocket = FakeSocket as unknown as SocketConstructor;

/** A token as far as a client reads one. */
export function fakeToken(sub: string, serial = 0): string {
  const part = (value: object) => btoa(JSON.stringify(value)).replace(/=+$/, "");
  return [part({ alg: "none" }), part({ sub, serial }), "x"].join(".");
}
