// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Instances that are none: shell scripts which find the descriptors of one, and flows that nobody has.
 *
 * @module
 */
import type { FlowSnapshot, SideSnapshot } from "../../lib/flow/snapshot.ts";
import type { FlowQuestion } from "../../lib/forward/question.ts";

function side(pif: string, address: string, port: number): SideSnapshot {
  return { pif, address, port, ourAddress: "192.0.2.2", ourPort: 40000 };
}

/** A flow. */
export function flow(index: number): FlowSnapshot {
  return {
    index,
    generation: 2,
    type: "TCP connection",
    protocol: 6,
    state: "opening",
    initiator: side("TAP", "192.0.2.2", 50000),
    target: side("HOST", "198.51.100.1", 80),
    bytesFromInitiator: 0,
    bytesFromTarget: 0,
    ageMs: 0,
    label: null,
  };
}

/** A question about a flow. */
export const QUESTION: FlowQuestion = {
  protocol: "tcp",
  via: "tap",
  source: "192.0.2.2",
  sourcePort: 50000,
  address: "198.51.100.1",
  port: 80,
  namedAddress: "198.51.100.1",
  namedPort: 80,
  names: ["www.example.com"],
  resolver: false,
};

/** What instances say when all is in place. */
export const READY = {
  pid: 7,
  interface: "eth0",
  address4: "192.0.2.2",
  address6: null,
  socket: null,
};

/** The shell's words for sending lines to the controller. */
export function say(...notices: unknown[]): string {
  return notices.map((notice) => `printf '%s\\n' '${JSON.stringify(notice)}' >&3\n`).join("");
}

/** Has the shell wait for a line of the controller, which is in `$line` then. */
export const HEAR = "read -r line <&3\n";

/** The `program` option for an instance that is this shell script. Its arguments are `$@`. */
export function fake(script: string): { program: string[] } {
  return { program: ["sh", "-c", script, "fake"] };
}
