// The demo page as belfryd --dev serves it: it lives on events, survives what its buttons break, and
// loads from nowhere else.

import type { ChildProcess } from "node:child_process";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { program } from "../harness/belfry.js";
import { launch, nameless } from "../harness/browser.js";
import { end, eventually, start } from "../harness/process.js";

let server: ChildProcess & { log: () => string };
let browser: Browser;
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  server = start(program("belfryd"), ["--dev", "--listen=127.0.0.1:0"]);
  browser = await launch();
  const url = await eventually(() => /demo page +(\S+)/.exec(server.log())?.[1], "the page's address");
  page = await browser.newPage({ viewport: { width: 390, height: 844 } });
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (m) => m.type() === "error" && problems.push(m.text()));
  page.on("request", (r) => r.url().startsWith(url) || problems.push(`asked for ${r.url()}`));
  await page.goto(url);
  await page.getByRole("status").getByText("Live").waitFor();
});

afterAll(async () => {
  await browser?.close();
  if (server) await end(server, "SIGINT");
});

const click = (name: string | RegExp) => page.getByRole("button", { name, exact: true }).click();
const figure = async (name: string) =>
  Number(await page.locator(".ledger div", { hasText: name }).locator("dd").innerText());
const allArrived = () =>
  eventually(async () => {
    const [sent, received] = [await figure("sent"), await figure("arrived")];
    return sent > 0 && sent === received ? sent : null;
  }, "all events arrive");

describe("the demo page", () => {
  it("shows what each button sends", async () => {
    await click("Purchase");
    await page.locator(".transactions .row").first().waitFor();
    for (const name of ["Insight", "Notification", "Bank sync", "System alert", "Save for a goal"])
      await click(name);
    await page.locator(".news.info, .news.success").first().waitFor();
    await page.getByRole("alert").waitFor();
    await click(/^Mark \d+ read$/);
    await eventually(async () => (await page.locator(".news.read").count()) > 0, "it is read");
    await allArrived();
  });

  it("gets everything once, whatever is broken", async () => {
    for (const name of ["Drop my connection", "Expire my token", "Kill my worker"]) {
      await click("Purchase");
      await click(name);
      await click("Purchase");
      await page.getByRole("status").getByText("Live").waitFor();
      await allArrived();
    }
    await click(/^No network/);
    await page.getByRole("status").getByText("Reconnecting").waitFor();
    expect(await page.locator(".badge-detail").innerText()).toMatch(/the network is gone/);
    await click("Purchase");
    await page.getByRole("status").getByText("Live").waitFor();
    await allArrived();
    expect(await figure("twice")).toBe(0);
  });

  it("stays away when thrown out, and comes back when asked to", async () => {
    await click("Throw me out");
    await page.getByRole("status").getByText("Offline").waitFor();
    expect(await page.locator(".badge-detail").innerText()).toMatch(/administrator \(4003\)/);
    await click("Connect now");
    await page.getByRole("status").getByText("Live").waitFor();
  });

  it("fits a phone, names its controls, and complains of nothing", async () => {
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(width).toBeLessThanOrEqual(390);
    expect(await nameless(page)).toEqual([]);
    // What a killed worker and an absent user leave in the console is the test's doing.
    expect(problems.filter((p) => !/Failed to load resource|WebSocket/.test(p))).toEqual([]);
  });
});
