// A network between client and server that can fail: cut at once, or go silent. With several servers
// it is a load balancer, too: connections go to one after the other.

import { connect, createServer, type Server, type Socket } from "node:net";

export class Network {
  readonly #server: Server;
  readonly #pairs = new Set<[Socket, Socket]>();
  #isDown = false;
  #isSilent = false;
  accepted = 0;

  private constructor(readonly targets: readonly string[]) {
    this.#server = createServer((near) => this.#accept(near));
  }

  static to(...targets: string[]): Promise<Network> {
    const network = new Network(targets);
    return new Promise((resolve) =>
      network.#server.listen(0, "127.0.0.1", () => resolve(network)),
    );
  }

  get address(): string {
    const address = this.#server.address();
    return `127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
  }
  get url(): string {
    return `ws://${this.address}/ws`;
  }
  get http(): string {
    return `http://${this.address}`;
  }

  #accept(near: Socket): void {
    if (this.#isDown) {
      near.destroy();
      return;
    }
    const target = this.targets[this.accepted++ % this.targets.length] ?? "";
    const [host, port] = target.split(":");
    const far = connect(Number(port), host);
    const pair: [Socket, Socket] = [near, far];
    this.#pairs.add(pair);
    const drop = () => {
      if (this.#isSilent) return;
      near.destroy();
      far.destroy();
      this.#pairs.delete(pair);
    };
    for (const [from, to] of [[near, far] as const, [far, near] as const]) {
      from.on("data", (data) => void (this.#isSilent || to.write(data)));
      from.on("error", drop);
      from.on("close", drop);
    }
  }

  /** Every connection breaks, and no new one comes through. */
  down(): void {
    this.#isDown = true;
    this.#isSilent = false;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#pairs.clear();
  }

  up(): void {
    this.#isDown = false;
  }

  /** Those that are open say nothing any more, and nobody tells. New ones work. */
  freeze(): void {
    for (const [near, far] of this.#pairs) {
      near.removeAllListeners("data").removeAllListeners("close");
      far.removeAllListeners("data").removeAllListeners("close");
    }
  }

  stop(): void {
    this.down();
    this.#server.close();
  }
}
