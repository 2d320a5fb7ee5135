export {
  BelfryProvider,
  useBelfryClient,
  useBelfryEvent,
  useConnectionState,
  useWebSocket,
} from "./hooks.js";
export type { UseWebSocket, UseWebSocketOptions } from "./hooks.js";
