export { ACTIONS, bindStore, createRealtimeStore, useRealtimeStore } from "./store.js";
export type { RealtimeActions, RealtimeState, RealtimeStore } from "./store.js";
export type * from "./types.js";
export * from "./selectors.js";
