// Debian's Chromium, without a screen.

import { existsSync } from "node:fs";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { eventually } from "./process.js";
import type {} from "./page-entry.js"; // what the page has in its window

export function launch(): Promise<Browser> {
  const path = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(path)) throw new Error(`${path} is not there: apt-get install chromium`);
  return chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-gpu"] });
}

export interface OpenTab {
  page: Page;
  ids(): Promise<string[]>;
  role(): Promise<string>;
  status(): Promise<string>;
  has(count: number): Promise<unknown>;
  /** Sockets that this page has opened. */
  sockets(): number;
}

export async function openTab(
  context: BrowserContext,
  url: string,
  gateway: string,
  token: string,
  options: object = {},
): Promise<OpenTab> {
  const page = await context.newPage();
  let sockets = 0;
  page.on("websocket", () => void sockets++);
  await page.goto(url);
  await page.waitForFunction(() => typeof window.openClient === "function");
  await page.evaluate(([g, t, o]) => window.openClient(g, t, o), [gateway, token, options] as const);
  const tab: OpenTab = {
    page,
    ids: () => page.evaluate(() => window.tab.ids),
    role: () => page.evaluate(() => window.tab.client.state.role),
    status: () => page.evaluate(() => window.tab.client.state.status),
    has: (count) =>
      eventually(async () => (await tab.ids()).length >= count, `${count} messages in a tab`),
    sockets: () => sockets,
  };
  await eventually(async () => (await tab.status()) === "connected", "connected");
  await eventually(() => page.evaluate(() => window.tab.syncs), "FULL_SYNC");
  return tab;
}

/** Controls and pictures that a screen reader could only spell out. */
export function nameless(page: Page): Promise<string[]> {
  return page
    .locator("button, input, select, summary, [role=progressbar], [role=img], [role=region]")
    .evaluateAll((all) =>
      all
        .filter((e) => {
          const label = e.id ? document.querySelector(`label[for="${e.id}"]`) : e.closest("label");
          return !(e.textContent?.trim() || e.getAttribute("aria-label") || label?.textContent?.trim());
        })
        .map((e) => e.outerHTML.slice(0, 100)),
    );
}
