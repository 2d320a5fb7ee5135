// The operator's page, as belfryd serves it, over the real numbers: of one instance, and of two behind
// a load balancer.

import { writeFileSync, readFileSync } from "node:fs";
import { BelfryClient } from "belfry-client";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import WebSocket from "ws";
import { Belfry, makeToken } from "../harness/belfry.js";
import { launch, nameless } from "../harness/browser.js";
import { Network } from "../harness/network.js";
import { eventually } from "../harness/process.js";
import { Redis } from "../harness/redis.js";

let redis: Redis;
let browser: Browser;
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  [redis, browser] = await Promise.all([Redis.start(), launch()]);
});

afterAll(async () => {
  await browser?.close();
  await redis?.stop();
});

async function open(url: string): Promise<void> {
  page = await browser.newPage();
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("request", (r) => r.url().startsWith(url) || problems.push(`asked for ${r.url()}`));
  await page.goto(`${url}/ws/admin`);
}

async function show(token: string): Promise<void> {
  await page.getByLabel("An administrator's token").fill(token);
  await page.getByRole("button", { name: "Show" }).click();
}

async function explain(user: string, id: string): Promise<void> {
  await page.getByLabel("user", { exact: true }).fill(user);
  await page.getByLabel("id of the message").fill(id);
  await page.getByRole("button", { name: "Explain" }).click();
}

const admin = () => show(makeToken("root", { admin: true }));
const figure = async (name: string) =>
  (await page.locator(".figure", { hasText: name }).first().locator("dd").innerText()).split("\n")[0];
const rows = (table: string) => page.getByRole("region", { name: `Table of ${table}` }).locator("tbody tr");
/** What stands beside a word in the answer to "What happened to a message?". */
const told = async (about: string) =>
  page.locator(".told > div", { has: page.getByRole("term").getByText(about, { exact: true }) }).getByRole("definition").allInnerTexts();

async function connect(url: string, user: string): Promise<BelfryClient> {
  const client = new BelfryClient({ url, WebSocket, getToken: () => makeToken(user) });
  client.connect();
  await eventually(() => client.state.status === "connected", "a device");
  return client;
}

describe("of one instance", () => {
  let server: Belfry;

  beforeEach(async () => {
    server = await Belfry.start(redis);
    await open(server.http);
  });

  afterEach(async () => {
    await page.close();
    await server.stop();
    expect(problems.splice(0)).toEqual([]);
  });

  it("shows nothing without an administrator's token", async () => {
    await show("nonsense");
    await page.getByRole("alert").getByText("Authentication failed").waitFor();
    await show(makeToken("alice"));
    await page.getByRole("alert").getByText("Administrator rights are required").waitFor();
    expect(await page.locator(".figure").count()).toBe(0);
  });

  it("shows devices, workers, plots, latency, and why connections ended", async () => {
    const client = await connect(server.url, "bob");
    await admin();
    await page.getByRole("status").getByText("1 instance, 2 workers ready, 4 of 4 links to Redis").waitFor();
    await eventually(async () => (await figure("devices")) === "1", "the device is seen");
    expect(await rows("workers").count()).toBe(2);
    expect(await rows("instances").count()).toBe(1);
    expect(await page.locator("canvas").count()).toBe(4);
    expect(await page.getByLabel("Show").count()).toBe(0); // nothing to choose from
    const ids: string[] = [];
    await eventually(async () => {
      ids.push((await redis.produce("bob")).id);
      return /ms$/.test((await figure("delivery p99")) ?? "");
    }, "a latency");
    expect(await figure("delivery p50")).toMatch(/^\d+(\.\d+)? ms$/);
    await eventually(() => client.lastId === ids.at(-1), "the last message");
    await server.ctl("kick", "bob");
    await page.locator(".reasons li", { hasText: "admin" }).waitFor();
    expect(page.url()).not.toContain("token");
    await page.getByRole("button", { name: "Forget the token" }).click();
    await page.getByLabel("An administrator's token").waitFor();
    client.close();
  });

  it("tells how the last reload went", async () => {
    await admin();
    await eventually(async () => (await figure("last reload")) === "none yet", "no reload yet");
    await server.reload();
    await eventually(async () => (await figure("last reload")) === "done", "the reload");
    expect(await rows("instances").innerText()).toMatch(/\bdone\b/);
    const before = readFileSync(server.config, "utf8");
    writeFileSync(server.config, `${before}nonsense = 1\n`);
    await server.ctl("reload").catch(() => {}); // it says no
    await eventually(async () => (await figure("last reload")) === "refused", "the refusal");
    expect(await rows("instances").innerText()).toMatch(/refused[^]*nonsense/);
  });

  it("explains what happened to a message, in belfryctl's words", async () => {
    const client = await connect(server.url, "carol");
    const { id } = await redis.produce("carol");
    await eventually(() => client.lastId === id, "the message");
    await admin();
    await explain("carol", id);
    await eventually(async () => (await told("devices")).length === 1, "the device's line");
    expect((await told("devices"))[0]).toMatch(/delivered at/);
    expect((await told("stored"))[0]).toMatch(/^at position 0 of 1/);
    const printed = await server.ctl("explain", "carol", id);
    expect(printed).toContain((await told("published"))[0]);
    await page.getByText(/^The records it is told from/).click();
    await page.getByRole("cell", { name: "written", exact: true }).waitFor();
    await explain("carol", "no-such-id");
    await page.getByText("Nobody knows this message of carol.").waitFor();
    client.close();
  });
});

describe("on a phone, or without a mouse", () => {
  let server: Belfry;

  beforeAll(async () => {
    server = await Belfry.start(redis);
    await open(server.http);
    await page.setViewportSize({ width: 390, height: 844 });
  });

  afterAll(async () => {
    await page?.close();
    await server?.stop();
  });

  it("is opened and used with keys alone", async () => {
    expect(await nameless(page)).toEqual([]);
    await page.keyboard.type(makeToken("root", { admin: true })); // the field has the focus
    await page.keyboard.press("Enter");
    await page.getByRole("status").getByText("1 instance, 2 workers ready").waitFor();
    const reached: string[] = [];
    for (let i = 0; i < 12 && reached.at(-1) !== "Explain"; i++) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => {
        const e = document.activeElement as HTMLElement;
        return e.getAttribute("aria-label") ?? (e.getAttribute("name") || e.innerText);
      }));
      if (reached.at(-1) === "user" || reached.at(-1) === "id") await page.keyboard.type("nobody");
    }
    expect(reached).toEqual(expect.arrayContaining(["Table of instances", "Table of workers", "user", "id", "Explain"]));
    await page.keyboard.press("Enter");
    await page.getByText("Nobody knows this message of nobody.").waitFor();
  });

  it("is no wider than the phone, and names all it shows", async () => {
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    expect(width).toBeLessThanOrEqual(390);
    expect(await nameless(page)).toEqual([]);
    await page.getByRole("heading", { level: 1, name: "Belfry" }).waitFor();
    expect(await page.getByRole("main").count()).toBe(1);
  });

  it("is light or dark as the system is, until told otherwise", async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await ground();
    await page.emulateMedia({ colorScheme: "light" });
    expect(await ground()).not.toBe(dark);
    await page.getByRole("button", { name: /^Colours: auto/ }).click();
    await page.getByRole("button", { name: /^Colours: light/ }).click();
    expect(await ground()).toBe(dark);
  });
});

describe("of several instances behind a load balancer", () => {
  let servers: Belfry[];
  let balancer: Network;

  beforeAll(async () => {
    servers = [await Belfry.start(redis), await Belfry.start(redis, { workers: "1" })];
    balancer = await Network.to(...servers.map((server) => server.address));
    await open(balancer.http);
    await admin();
  });

  afterAll(async () => {
    await page?.close();
    balancer?.stop();
    for (const server of servers ?? []) await server.stop();
    expect(problems.splice(0)).toEqual([]);
  });

  it("shows them together, and each by itself", async () => {
    const clients = [
      await connect((servers[0] as Belfry).url, "dave"),
      await connect((servers[0] as Belfry).url, "erin"),
      await connect((servers[1] as Belfry).url, "dave"),
    ];
    await page.getByRole("status").getByText("2 instances, 3 workers ready, 6 of 6 links to Redis").waitFor();
    await eventually(async () => (await figure("devices")) === "3", "the devices of both");
    expect(await rows("instances").count()).toBe(2);
    expect(await rows("workers").count()).toBe(3);
    const seen: string[] = [];
    const choice = page.getByLabel("Show");
    for (const value of await choice.locator("option").evaluateAll((all) => all.map((o) => (o as HTMLOptionElement).value))) {
      await choice.selectOption(value);
      await eventually(async () => (await rows("instances").count()) === (value ? 1 : 2), "the choice");
      seen.push(`${await figure("devices")} devices, ${await rows("workers").count()} workers`);
    }
    expect(seen.sort()).toEqual(["1 devices, 1 workers", "2 devices, 2 workers", "3 devices, 3 workers"]);
    await choice.selectOption("");
    for (const client of clients) client.close();
  });

  it("explains a message to devices at both, whoever is asked", async () => {
    const clients = await Promise.all(servers.map((server) => connect(server.url, "frank")));
    const { id } = await redis.produce("frank");
    for (const client of clients) await eventually(() => client.lastId === id, "the message");
    for (let i = 0; i < 4; i++) {
      await explain("frank", id);
      await eventually(async () => (await told("devices")).length === 2, "both devices");
      for (const line of await told("devices")) expect(line).toMatch(/delivered at/);
      expect(await told("note")).toEqual([]);
    }
    for (const client of clients) client.close();
  });

  it("adds no more to the rates than there was, when one comes or goes", async () => {
    const most = () =>
      page.locator(".card", { hasText: "Each second: in from Redis" }).locator(".legend b").allInnerTexts();
    await (servers[1] as Belfry).crash();
    await eventually(async () => (await rows("instances").count()) === 3, "the new one beside the lost one");
    for (const text of await most()) expect(Number(text)).toBeLessThan(50);
  });
});
