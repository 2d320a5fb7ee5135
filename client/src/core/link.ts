// Where a client's messages come from: a socket of its own, or one that all tabs share.

import { Connection, type ConnectionHooks, type ConnectionOptions } from "./connection.js";
import type { ClientState } from "./state.js";
import type { TokenSource } from "./token.js";

export interface Link {
  start(): void;
  stop(): void;
  send(text: string): boolean;
  /** Now or not at all. */
  sendNow(text: string): boolean;
  wake(): void;
  retryNow(): void;
  /** Does this tab hold the socket? */
  readonly isSource: boolean;
}

export type MakeConnection = (hooks: ConnectionHooks) => Connection;

export function connectionMaker(options: ConnectionOptions, tokens: TokenSource): MakeConnection {
  return (hooks) => new Connection(options, tokens, hooks);
}

/** A socket of this client alone. */
export class OwnLink implements Link {
  readonly isSource = true;
  readonly #connection: Connection;

  constructor(make: MakeConnection, hooks: ConnectionHooks) {
    this.#connection = make({
      ...hooks,
      state: (state: ClientState) => hooks.state({ ...state, role: "alone" }),
    });
  }

  start(): void {
    this.#connection.start();
  }
  stop(): void {
    this.#connection.stop();
  }
  send(text: string): boolean {
    return this.#connection.send(text);
  }
  sendNow(text: string): boolean {
    return this.#connection.sendNow(text);
  }
  wake(): void {
    this.#connection.wake();
  }
  retryNow(): void {
    this.#connection.retryNow();
  }
}
