// SPDX-License-Identifier: GPL-2.0-or-later
/** Whatever a guest sends, and whenever a program answers: no flow begins that was not allowed, nor elsewhere. */
import { assert, assertEquals } from "@std/assert";
import { getLogger, LogLevels } from "@std/log";
import { FlowType } from "../../lib/flow/types.ts";
import { INI, SIDE_EADDR, SIDE_OADDR, TGT } from "../../lib/flow/side.ts";
import { Policy } from "../../lib/forward/policy.ts";
import type { FlowAnswer, FlowQuestion } from "../../lib/forward/question.ts";
import { KEPT_MS } from "../../lib/forward/questions.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { address } from "../helpers/fake_context.ts";
import { LoopDriver } from "../helpers/drive_loop.ts";
import { echo, ENDS } from "../loop_frames.ts";
import { buildSegment, SYN } from "../tcp/segment.ts";
import { udpFrame } from "../udp/guest.ts";
import { seeded } from "../wire/random.ts";

const SEEDS = 4, STEPS = 1500;
const LONGEST_STEP_MS = 4000;
const PROTOCOLS: ReadonlyMap<number, FlowQuestion["protocol"]> = new Map([
  [FlowType.TCP, "tcp"],
  [FlowType.UDP, "udp"],
  [FlowType.PING4, "icmp"],
  [FlowType.PING6, "icmp"],
]);
/** Mapped to the host's loopback: nothing leaves this machine, and nobody listens there. */
const ENDS4 = [["192.0.2.2", "192.0.2.3"], ["192.0.2.1"], ["127.0.0.7", "127.0.0.8"]] as const;
const ENDS6 = [["2001:db8::2", "2001:db8::3"], ["2001:db8::1"], ["::1"]] as const;

const bytesOf = (text: string) => {
  const words = address(text), view = new DataView(new ArrayBuffer(16));
  words.forEach((word, k) => view.setInt32(4 * k, word));
  return [...new Uint8Array(view.buffer)].slice(text.includes(":") ? 0 : 12);
};

/** A guest, a program, and what that has allowed. */
class Fuzz {
  readonly #random: (below: number) => number;
  readonly policy = new Policy([], [], undefined, {
    decide: (flow, id) => {
      this.asked++;
      const since = this.#allowedAt.get(this.#keyOf(flow)) ?? -Infinity;
      assert(this.driver.ctx.nowMs - since >= KEPT_MS, "asked although it was allowed");
      if (this.#random(3) > 0) {
        this.#waiting.push({ flow, id });
        return null;
      }
      return this.#answer(flow);
    },
  });
  readonly driver = new LoopDriver({ policy: this.policy, capacity: 64 });
  /** Where flows may go, by what was asked. */
  readonly #allowed = new Map<string, string>();
  /** When that was said, of those that have not begun. */
  readonly #allowedAt = new Map<string, number>();
  readonly #waiting: { flow: FlowQuestion; id: number }[] = [];
  asked = 0;
  began = 0;

  constructor(seed: number) {
    this.#random = seeded(seed);
    this.driver.ctx.table.observer = { opened: (i) => this.#opened(i), closed: () => {} };
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random(list.length)]!;
  }

  #answer(flow: FlowQuestion): FlowAnswer {
    const key = this.#keyOf(flow);
    const ping = flow.protocol === "icmp";
    this.#allowed.delete(key);
    this.#allowedAt.delete(key);
    const word = this.#pick(["allow", "allow", "reject", "prohibit", "drop", "nonsense"] as const);
    if (word !== "allow") return word as FlowAnswer;
    const [, , targets] = flow.address.includes(":") ? ENDS6 : ENDS4, target = this.#pick(targets);
    const port = 1 + this.#random(9), redirected = this.#random(2) > 0;
    const to = redirected ? `${target} ${ping ? 0 : port}` : `${flow.address} ${flow.port}`;
    this.#allowed.set(key, to);
    this.#allowedAt.set(key, this.driver.ctx.nowMs);
    const host = target.includes(":") ? `[${target}]` : target;
    return redirected ? { verdict: "allow", target: ping ? target : `${host}:${port}` } : "allow";
  }

  /** Fails unless the flow was allowed, to where it goes, and for the first time since then. */
  #opened(i: number): void {
    const { table } = this.driver.ctx, ini = table.side(i, INI), tgt = table.side(i, TGT);
    const protocol = PROTOCOLS.get(table.typeOf(i))!, ping = protocol === "icmp";
    const source = formatAddress(ini.words, SIDE_EADDR),
      named = formatAddress(ini.words, SIDE_OADDR);
    const key = [protocol, source, ini.eport, named, ping ? 0 : ini.oport].join();
    const to = `${formatAddress(tgt.words, SIDE_EADDR)} ${ping ? 0 : tgt.eport}`;
    assertEquals(to, this.#allowed.get(key), key);
    this.#allowed.delete(key);
    this.#allowedAt.delete(key);
    this.began++;
  }

  #frame(): Uint8Array {
    const v6 = this.#random(2) > 0, [sources, dests] = v6 ? ENDS6 : ENDS4;
    const source = this.#pick(sources), dest = this.#pick(dests);
    const sport = 4000 + this.#random(3), dport = 1 + this.#random(3);
    switch (this.#random(5)) {
      case 0:
        return echo(source, dest);
      case 1:
      case 2: {
        const ends = { source: bytesOf(source), dest: bytesOf(dest), v6 };
        return buildSegment({ ...ends, sport, dport, seq: this.#random(9), flags: SYN });
      }
    }
    return udpFrame(ENDS, source, sport, dest, dport, new Uint8Array(this.#random(2500)));
  }

  /** Something happens. */
  step(): void {
    const waiting = this.#waiting.length, { driver } = this;
    for (let k = this.#random(4); k > 0 && waiting > 0; k--) {
      const [question] = this.#waiting.splice(this.#random(this.#waiting.length), 1);
      if (!question || this.#random(9) === 0) continue; // this one is never answered
      const key = this.#keyOf(question.flow), maps = [this.#allowed, this.#allowedAt] as const;
      const [to, at] = maps.map((map) => map.get(key));
      if (this.policy.answered(question.id, this.#answer(question.flow))) continue;
      for (const map of maps) map.delete(key); // it came too late
      if (to !== undefined) maps[0].set(key, to as string);
      if (at !== undefined) maps[1].set(key, at as number);
    }
    driver.serve(...Array.from({ length: this.#random(5) }, () => this.#frame()));
    if (this.#random(4) === 0) driver.ahead += this.#random(LONGEST_STEP_MS);
    driver.ctx.table.verify();
  }

  #keyOf({ protocol, source, sourcePort, namedAddress, namedPort }: FlowQuestion): string {
    return [protocol, source, sourcePort, namedAddress, namedPort].join();
  }
}

Deno.test("no flow begins but by its own decision, taken once, and towards its own target", () => {
  const logger = getLogger(), { level } = logger;
  logger.level = LogLevels.CRITICAL; // what is wrong with answers
  try {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const fuzz = new Fuzz(seed);
      for (let step = 0; step < STEPS; step++) fuzz.step();
      assert(fuzz.began > 100 && fuzz.asked > fuzz.began, `${fuzz.began} of ${fuzz.asked}`);
      fuzz.driver.close();
    }
  } finally {
    logger.level = level;
  }
});
