// React on top of a client. The client lives outside of React: no render, no inline function and no
// second mount of StrictMode opens or closes a socket.

import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
  type ReactNode,
} from "react";
import type {
  BelfryClient,
  BelfryMessage,
  ClientState,
  ConnectionError,
  EventName,
  MessageOf,
} from "belfry-client";

const Context = createContext<BelfryClient | null>(null);

/** Gives the client to all below. It connects as soon as one of them uses it. */
export function BelfryProvider(props: { client: BelfryClient; children?: ReactNode }) {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

export function useBelfryClient(given?: BelfryClient): BelfryClient {
  const found = useContext(Context);
  const client = given ?? found;
  if (!client) throw new Error("no BelfryProvider above, and no client given");
  return client;
}

/** The newest of what was rendered, for listeners that are set up once. */
function useLatest<T>(value: T): { readonly current: T } {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}

/** On a server, and until the browser has taken over: nobody is connected. */
const ON_SERVER: ClientState = {
  status: "disconnected",
  attempts: 0,
  retryAt: null,
  lastError: null,
  connectionId: null,
  role: "alone",
};

/** The state of the connection, without holding it open. */
export function useConnectionState(given?: BelfryClient): ClientState {
  const client = useBelfryClient(given);
  return useSyncExternalStore(
    useCallback((changed: () => void) => client.on("state", changed), [client]),
    () => client.state,
    () => ON_SERVER,
  );
}

/** Listens to one type of message, as long as the component is there. */
export function useBelfryEvent<T extends EventName>(
  type: T,
  listener: (message: MessageOf<T>) => void,
  given?: BelfryClient,
): void {
  const client = useBelfryClient(given);
  const latest = useLatest(listener);
  useEffect(() => client.on(type, (message) => latest.current(message)), [client, type, latest]);
}

export interface UseWebSocketOptions {
  onMessage?: (message: BelfryMessage) => void;
  /** Instead of the provider's. */
  client?: BelfryClient;
}

export interface UseWebSocket {
  isConnected: boolean;
  isConnecting: boolean;
  connectionState: ClientState;
  lastError: ConnectionError | null;
  /** A fresh FULL_SYNC. */
  refreshDashboard: () => boolean;
  markNotificationsRead: (ids: readonly string[]) => boolean;
  /** Receive these types only, and those of earlier calls. Returns what takes them out again. */
  subscribe: (types: readonly string[]) => () => void;
}

/** Connected as long as some component that calls this is there. */
export function useWebSocket(options: UseWebSocketOptions = {}): UseWebSocket {
  const client = useBelfryClient(options.client);
  const connectionState = useConnectionState(client);
  const onMessage = useLatest(options.onMessage);
  // Listening first: nothing arrives unheard.
  useEffect(
    () => client.on("message", (message) => onMessage.current?.(message)),
    [client, onMessage],
  );
  useEffect(() => client.acquire(), [client]);

  const commands = useMemo(
    () => ({
      refreshDashboard: () => client.refreshDashboard(),
      markNotificationsRead: (ids: readonly string[]) => client.markNotificationsRead(ids),
      subscribe: (types: readonly string[]) => {
        client.subscribe(types);
        return () => void client.unsubscribe(types);
      },
    }),
    [client],
  );
  return useMemo(
    () => ({
      isConnected: connectionState.status === "connected",
      isConnecting: connectionState.status === "connecting",
      connectionState,
      lastError: connectionState.lastError,
      ...commands,
    }),
    [connectionState, commands],
  );
}
