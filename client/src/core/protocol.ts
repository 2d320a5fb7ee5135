// What goes over the wire: belfry-protocol(7).

import { EVENTS, type EventPayloads, type EventType } from "./tables.js";

export const SUBPROTOCOL = "belfry.v1";

/** Beside the payload of the FULL_SYNC that begins each connection. */
export interface SyncInfo {
  /** False: there may be a gap that the server cannot fill. Load your data anew. */
  recovered: boolean;
  /** How many messages follow before the first live one. */
  missed: number;
  /** How many stored messages the user has not marked read. */
  unread: number;
  /** Id of the newest stored message. */
  last_id: string | null;
  connection_id: string;
}

export interface BelfryMessage<Payload = Record<string, unknown>> {
  id?: string;
  /** As it came, in whatever case. */
  type: string;
  /** ISO 8601, UTC. */
  timestamp?: string;
  user_id?: string;
  payload: Payload;
  /** On live copies: the channel it came over. */
  channel?: string;
  /** On FULL_SYNC. */
  sync?: SyncInfo;
  [other: string]: unknown;
}

type Known<T extends string> = Uppercase<T> extends EventType ? Uppercase<T> : never;

/** The message of a type, with its payload where the type is in the table. */
export type MessageOf<T extends string> = [Known<T>] extends [never]
  ? BelfryMessage
  : BelfryMessage<EventPayloads[Known<T>]>;

/** Every name of an event type, in both cases: what an editor offers. */
export type EventName = EventType | Lowercase<EventType>;

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A message out of a text frame; null for what is none. */
export function parseMessage(text: string): BelfryMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  return isRecord(value) && typeof value.type === "string" ? (value as BelfryMessage) : null;
}

export function encodeCommand(command: string, payload: object = {}): string {
  return JSON.stringify({ type: command, payload });
}

/**
 * Can a device resume after this message? Only what is stored can be found again: not what the
 * table says is never stored, and no broadcast.
 */
export function isStored(message: BelfryMessage): boolean {
  const event = (EVENTS as Record<string, { store: string } | undefined>)[
    message.type.toUpperCase()
  ];
  if (event && event.store !== "list") return false;
  return message.user_id !== "system" && !message.channel?.endsWith(":broadcast");
}

/** Milliseconds since 1970 of ISO 8601 text; none of the zones means UTC. NaN when unreadable. */
export function parseTime(text: unknown): number {
  if (typeof text !== "string") return NaN;
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : text + "Z");
}
