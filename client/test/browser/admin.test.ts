// The operator's page: a token first, then what happens.

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import WebSocket from "ws";
import { BelfryClient } from "belfry-client";
import { Belfry, makeToken } from "../harness/belfry.js";
import { launch } from "../harness/browser.js";
import { eventually } from "../harness/process.js";
import { Redis } from "../harness/redis.js";

let redis: Redis;
let server: Belfry;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  [redis, browser] = await Promise.all([Redis.start(), launch()]);
  server = await Belfry.start(redis);
  page = await browser.newPage();
  await page.goto(`${server.http}/ws/admin`);
});

afterAll(async () => {
  await browser?.close();
  await server?.stop();
  await redis?.stop();
});

const show = async (token: string) => {
  await page.getByLabel("An administrator's token").fill(token);
  await page.getByRole("button", { name: "Show" }).click();
};
const figure = (name: string) =>
  page.locator(".figure", { hasText: name }).first().locator("dd").innerText();

it("shows nothing without an administrator's token", async () => {
  await show("nonsense");
  await page.getByRole("alert").getByText("Authentication failed").waitFor();
  await show(makeToken("alice"));
  await page.getByRole("alert").getByText("Administrator rights are required").waitFor();
});

it("shows devices, workers, plots, and why connections ended", async () => {
  const client = new BelfryClient({ url: server.url, WebSocket, getToken: () => makeToken("bob") });
  client.connect();
  await eventually(() => client.state.status === "connected", "a device");
  await show(makeToken("root", { admin: true }));
  await page.getByRole("status").getByText("1 instance, 2 workers ready").waitFor();
  await eventually(async () => (await figure("devices")) === "1", "the device is seen");
  expect(await page.locator("tbody tr").count()).toBe(2); // workers
  expect(await page.locator("canvas").count()).toBe(4);
  const { id } = await redis.produce("bob");
  await eventually(() => client.lastId === id, "the message");
  await page.getByLabel("user", { exact: true }).fill("bob");
  await page.getByLabel("id of the message").fill(id);
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByRole("cell", { name: "written", exact: true }).waitFor();
  await server.ctl("kick", "bob");
  await page.locator(".reasons li", { hasText: "admin" }).waitFor();
  expect(page.url()).not.toContain("token");
  await page.getByRole("button", { name: "Forget the token" }).click();
  await page.getByLabel("An administrator's token").waitFor();
  client.close();
});
