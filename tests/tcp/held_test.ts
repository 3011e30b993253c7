// SPDX-License-Identifier: GPL-2.0-or-later
/** Connections to a port of the namespace that a program thinks about. */
import { assertEquals } from "@std/assert";
import { Pif } from "../../lib/flow/side.ts";
import { Policy } from "../../lib/forward/policy.ts";
import type { FlowAnswer } from "../../lib/forward/question.ts";
import { ANSWER_MS, MAX_QUESTIONS } from "../../lib/forward/questions.ts";
import { libc } from "../../lib/sys/libc.ts";
import { heldShare } from "../../lib/tcp/held.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { freePort, spec, SpliceWorld } from "./splice_world.ts";
import { HostSocket } from "./world.ts";

const EAGAIN = 11, ECONNRESET = 104; // errno(3)
const RLIMIT_NOFILE = 7; // asm-generic/resource.h

/** A port of the namespace for a listener of the host's, and a program that thinks about who comes. */
class Thinking implements Disposable {
  readonly ids: number[] = [];
  readonly policy: Policy = new Policy([], [], undefined, {
    decide: (_flow, id) => {
      this.ids.push(id);
      return null;
    },
  });
  readonly world = new SpliceWorld({ policy: this.policy });
  readonly server = HostSocket.listen();
  readonly port = freePort();

  constructor() {
    const { server } = this;
    this.world.tcp.listen(spec(this.port, server.port, { pif: Pif.SPLICE }));
  }

  /** A client whose connection waits. */
  client(): HostSocket {
    const asked = this.ids.length, client = HostSocket.connect(this.port);
    this.world.until(() => this.ids.length > asked, "question");
    return client;
  }

  /** Answers question `k`, and does what the loop does then. */
  answer(k: number, answer: FlowAnswer): void {
    assertEquals(this.policy.answered(this.ids[k]!, answer), true);
    const { questions } = this.policy.deciding!;
    this.world.tcp.answered(questions.nextReady(this.world.ctx.nowMs));
    this.world.settle();
  }

  isReset(client: HostSocket): boolean {
    return this.world.until(() => client.receive() === -ECONNRESET, "reset");
  }

  [Symbol.dispose](): void {
    this.server.close();
    this.world[Symbol.dispose]();
  }
}

Deno.test("a connection waits for its answer, and carries then what was sent before", () => {
  using thinking = new Thinking();
  const { world, server } = thinking;
  using client = thinking.client();
  client.send(Uint8Array.of(1, 2, 3));
  world.settle();
  assertEquals([server.accept(), world.table.activeCount, world.tcp.unsettled()], [null, 0, true]);
  thinking.answer(0, { verdict: "allow", label: "local" });
  using accepted = world.until(() => server.accept(), "accept");
  const got = world.until(() => {
    const bytes = accepted.receive();
    return typeof bytes === "number" ? null : bytes;
  }, "data");
  assertEquals(got, Uint8Array.of(1, 2, 3));
  assertEquals([thinking.ids.length, world.table.labels[0]], [1, world.table.labelId("local")]);
});

Deno.test("a connection that is denied later is reset, whatever the verdict", () => {
  for (const verdict of ["reject", "prohibit", "drop"] as const) {
    using thinking = new Thinking();
    using client = thinking.client();
    thinking.answer(0, verdict);
    assertEquals([thinking.isReset(client), thinking.server.accept()], [true, null]);
  }
});

Deno.test("the answer to one connection is not the next one's, also not its target", () => {
  using thinking = new Thinking();
  using other = HostSocket.listen();
  const { world, server } = thinking;
  using first = thinking.client();
  using second = thinking.client();
  thinking.answer(1, { verdict: "allow", target: `127.0.0.1:${other.port}` });
  using accepted = world.until(() => other.accept(), "accept");
  assertEquals([server.accept(), world.table.activeCount], [null, 1]);
  thinking.answer(0, "reject");
  assertEquals(thinking.isReset(first), true);
  second.send(Uint8Array.of(7));
  world.until(() => typeof accepted.receive() !== "number", "data");
});

Deno.test("a connection without an answer is reset after a while, and its socket closed", () => {
  using thinking = new Thinking();
  const { world, policy } = thinking, before = descriptors();
  using client = thinking.client();
  world.ctx.nowMs += ANSWER_MS;
  policy.deciding!.questions.expire(world.ctx.nowMs);
  assertEquals([thinking.isReset(client), world.tcp.unsettled()], [true, false]);
  client.close();
  assertEquals(descriptors(), before);
});

/** Runs `body` where a process may have so many descriptors. */
function limited(descriptors: number, body: () => void): void {
  const limits = new BigUint64Array(2);
  libc.getrlimit(RLIMIT_NOFILE, limits);
  libc.setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(descriptors), limits[1]!));
  try {
    body();
  } finally {
    libc.setrlimit(RLIMIT_NOFILE, limits);
  }
}

Deno.test("connections that wait leave descriptors to others: those beyond are reset", () => {
  const before = descriptors(), limit = 400, most = heldShare(limit);
  limited(limit, () => {
    using thinking = new Thinking();
    const { world, ids } = thinking, clients: HostSocket[] = [];
    const refused = () => {
      const client = HostSocket.connect(thinking.port);
      clients.push(client);
      return thinking.isReset(client);
    };
    for (let k = 0; k < most; k++) clients.push(thinking.client());
    for (let k = 0; k < 10; k++) assertEquals(refused(), true);
    assertEquals([ids.length, world.tcp.unsettled()], [most, true], "nobody is asked about them");
    thinking.answer(3, "allow");
    world.until(() => thinking.server.accept(), "accept").close();
    world.ctx.nowMs++;
    clients.push(thinking.client()); // there is room for one again
    assertEquals([refused(), clients.at(-2)!.receive()], [true, -EAGAIN]);
    for (const client of clients) client.close();
    world.settle();
  });
  assertEquals(descriptors(), before);
});

Deno.test("connections whose clients have closed make room for those that come", () => {
  limited(400, () => {
    using thinking = new Thinking();
    const { world } = thinking, most = heldShare(400), clients: HostSocket[] = [];
    for (let k = 0; k < most; k++) clients.push(thinking.client());
    clients[0]!.send(Uint8Array.of(1)); // closed with data that nobody has read
    for (const client of clients.splice(0, most - 1)) client.close();
    world.ctx.nowMs++;
    for (let k = 0; k < most - 1; k++) clients.push(thinking.client());
    world.settle();
    for (const client of clients) assertEquals(client.receive(), -EAGAIN); // they wait, also the last of the first
    for (const client of clients) client.close();
  });
});

Deno.test("heldShare() is some of the descriptors, and no more than there are questions", () => {
  assertEquals([1, 20, 400, 1 << 20].map(heldShare), [1, 2, 50, MAX_QUESTIONS]);
});

Deno.test("connections that wait do not outlive the listeners, nor grow without bound", () => {
  const before = descriptors();
  {
    using thinking = new Thinking();
    const { world } = thinking, clients: HostSocket[] = [];
    for (let k = 0; k < 50; k++) clients.push(thinking.client());
    for (let place = 0; place < MAX_QUESTIONS; place++) world.tcp.answered(place); // of nobody
    assertEquals(thinking.ids.length, 50);
    assertEquals(world.tcp.unsettled(), true);
    world.tcp.close();
    assertEquals(world.tcp.unsettled(), false);
    for (const client of clients) client.close();
  }
  assertEquals(descriptors(), before);
});
