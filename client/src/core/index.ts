export { BelfryClient } from "./client.js";
export type { BelfryOptions, ClientEvents, Gap } from "./client.js";
export type { ClientState, ConnectionError, Status } from "./state.js";
export type { BelfryMessage, EventName, MessageOf, SyncInfo } from "./protocol.js";
export type { GetToken, TokenRequest } from "./token.js";
export type { PositionStorage } from "./position.js";
export { CLOSES, EVENTS } from "./tables.js";
export type { Advice, EventPayloads, EventType, NotificationKind, Priority } from "./tables.js";
