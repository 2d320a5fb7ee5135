import { BelfryClient } from "../../src/core/index.js";

/** What a test reads out of a tab. */
export interface Tab {
  client: BelfryClient;
  ids: string[];
  gaps: number;
  syncs: number;
}

declare global {
  interface Window {
    openClient(url: string, token: string, options?: object): void;
    tab: Tab;
  }
}

window.openClient = (url, token, options = {}) => {
  const client = new BelfryClient({ url, getToken: () => token, ...options });
  const tab: Tab = { client, ids: [], gaps: 0, syncs: 0 };
  client.on("message", (m) => void (m.id !== undefined && tab.ids.push(m.id)));
  client.on("FULL_SYNC", () => void tab.syncs++);
  client.on("gap", () => void tab.gaps++);
  window.tab = tab;
  client.connect();
};
