// The page's client, and the network that it believes to have.

import { BelfryClient } from "belfry-client";
import { bindStore } from "belfry-client/store";
import { keptToken } from "../shared/token.js";

const kept = keptToken("belfry-demo-token");

/** --dev writes one into the page; then the server lets itself be broken, too. */
const given = document.querySelector<HTMLMetaElement>('meta[name="belfry-token"]')?.content ?? "";
export const isDev = given !== "";

export const token = given || kept.read() || "";

/** The page begins anew with it. */
export function startWith(next: string): void {
  kept.keep(next);
  location.reload();
}

/** As much of a socket as a client uses, with nobody at the other end. */
class DeadSocket {
  readyState = 0;
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  #timer = setTimeout(() => this.onclose?.({ code: 1006, reason: "" }), 400);

  send(): void {}
  close(): void {
    clearTimeout(this.#timer);
  }
}

/** A network with a switch. */
export const network = {
  isDown: false,
  open: new Set<WebSocket>(),
  down(): void {
    network.isDown = true;
    for (const socket of [...network.open]) {
      network.open.delete(socket);
      socket.onclose?.(new CloseEvent("close", { code: 1006, reason: "the network is gone" }));
      socket.close();
    }
  },
  up(): void {
    network.isDown = false;
    window.dispatchEvent(new Event("online"));
  },
};

class SwitchedSocket extends WebSocket {
  constructor(url: string, protocols?: string | string[]) {
    if (network.isDown) return new DeadSocket() as unknown as SwitchedSocket;
    super(url, protocols);
    network.open.add(this);
    this.addEventListener("close", () => network.open.delete(this));
  }
}

export const client = new BelfryClient({
  url: "/ws",
  getToken: () => token || null,
  WebSocket: SwitchedSocket,
  backoff: { base: 400, cap: 8_000, spread: 3_000 },
});
bindStore(client);

/** The user's other device, with a socket of its own: while it is there, the user is. */
export const otherDevice = new BelfryClient({
  url: "/ws",
  getToken: () => token || null,
  share: false,
});

export function break_(what: "connection" | "token" | "account" | "worker"): void {
  client.send("dev_break", { what });
}
