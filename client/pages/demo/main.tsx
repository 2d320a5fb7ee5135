import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { useRealtimeStore } from "belfry-client/store";
import { App } from "./App.js";
import { client, otherDevice, token } from "./belfry.js";
import { emit } from "./producer.js";
import "../shared/theme.css";
import "./styles.css";
import { restore, snapshot } from "./world.js";

const root = document.getElementById("root");
if (root) createRoot(root).render(<StrictMode><App /></StrictMode>);

if (token) {
  otherDevice.connect();
  // Where another page left off; the very first one draws the beginning.
  const end = client.on("FULL_SYNC", (message) => {
    end();
    const saved = (message.payload as { demo_world?: unknown }).demo_world;
    if (saved) restore(saved);
    else if (useRealtimeStore.getState().dashboard === null) emit([snapshot()]);
  });
}
