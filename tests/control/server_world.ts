// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A server whose instance consists of fakes, and what a controller says to it.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { EventType } from "../../lib/context.ts";
import { ControlServer } from "../../lib/control/server.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { FlowType } from "../../lib/flow/types.ts";
import { DEFAULT_EPHEMERAL } from "../../lib/forward/ports.ts";
import type { FlowQuestion } from "../../lib/forward/question.ts";
import { Epoll } from "../../lib/sys/epoll.ts";
import { makeForwarder } from "../host/forward_fakes.ts";
import { Pair } from "./pair.ts";

/** Exit code of an instance whose controller has gone. */
export const GONE = 143;
/** Flows in its table. */
export const CAPACITY = 4096;

/** One turn of the loop. @returns its exit code */
function oneTurn(epoll: Epoll, server: ControlServer): number | null {
  let code: number | null = null;
  const n = epoll.wait(0);
  for (let k = 0; k < n; k++) {
    assertEquals(epoll.type(k), EventType.CONTROL);
    code = server.event();
  }
  return server.flush() ?? code;
}

/** A server that is given an instance of fakes. */
export function open(mode: "pasta" | "passt" = "pasta", onAnswer: () => void = () => {}) {
  const pair = new Pair(), epoll = new Epoll(), server = new ControlServer(pair.fd);
  const buffer = new ArrayBuffer(FlowTable.byteLength(CAPACITY));
  const table = new FlowTable({ buffer, capacity: CAPACITY, clock: () => 1000 });
  table.on(FlowType.PING4, { deferred: () => true });
  const fakes = makeForwarder({ t: "80" });
  fakes.forwarder.open(10);
  const answers: unknown[] = [];
  const answered = (id: number, decision: unknown) => {
    onAnswer();
    return answers.push([id, decision]) > 0;
  };
  server.steer({
    epoll,
    table,
    buffer,
    forwarder: fakes.forwarder,
    options: { mode, tcp: true, udp: false, ephemeralPorts: DEFAULT_EPHEMERAL },
    policy: { answered },
    clock: () => 3500,
    gone: () => GONE,
  });
  const turn = () => oneTurn(epoll, server);
  /** What is said when this has come. */
  const say = (...messages: unknown[]): unknown[] => {
    for (const message of messages) {
      pair.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`);
    }
    assertEquals(turn(), null);
    return pair.messages();
  };
  /** A new flow. */
  const begin = (): number => {
    const flow = table.alloc();
    table.setType(flow, FlowType.PING4);
    table.activate(flow);
    return flow;
  };
  const end = () => {
    server.close();
    pair.close();
    epoll.close();
  };
  return { ...fakes, pair, epoll, server, table, answers, turn, say, begin, [Symbol.dispose]: end };
}

/** A request for ports, with a number. */
export const add = (id: number, ports: string, more = {}) => ({
  id,
  do: "forward.add",
  rule: { protocol: "tcp", ports, ...more },
});
/** A request to take ports back. */
export const remove = (id: number, ports: string) => ({ ...add(id, ports), do: "forward.remove" });
/** A request for the rules in force. */
export const list = (id: number) => ({ id, do: "forward.list" });
/** The reply to what was done. */
export const done = (reply: number) => ({ reply, result: null });
/** The reply to what was not. */
export const refused = (reply: number, name: string, message: string) => ({
  reply,
  error: { name, message },
});

/** A question about a flow. */
export const question: FlowQuestion = {
  protocol: "tcp",
  via: "tap",
  source: "192.0.2.2",
  sourcePort: 40000,
  address: "198.51.100.1",
  port: 443,
  namedAddress: "198.51.100.1",
  namedPort: 443,
  names: ["mock.test"],
  resolver: false,
};
