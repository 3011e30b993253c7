// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What an instance and its controller say to each other.
 *
 * Theory of operation: they share a connected UNIX stream socket (`--control FD`). Each message is a line of JSON,
 * either way. The controller's requests carry a number from 1 on, which is in the reply; a line of which no
 * number can be read is refused with 0. What the instance says of itself carries none. Requests that are
 * there when the instance starts are done before its guest runs, so that nothing is missed. The instance
 * never waits for its controller: events that it does not read in time are left out, and their number is
 * said. Only when all is over it waits for what it has said to be read, for half a minute at most. When the
 * controller has gone, the instance ends.
 *
 * @module
 */
import type { FlowSnapshot } from "../flow/snapshot.ts";
import type { FlowAnswer, FlowQuestion } from "../forward/question.ts";

/** Longest line that an instance takes, in bytes. */
export const MAX_LINE = 65536;

/** A rule of port forwarding. */
export interface ForwardRule {
  /** `host`: ports of the host lead to the guest (`-t`, `-u`); `guest`: the other way (`-T`, `-U`). Default: host. */
  readonly from?: "host" | "guest";
  /** Ports of each have rules of their own. */
  readonly protocol: "tcp" | "udp";
  /** As on the command line: `8080`, `8080:80`, `127.0.0.1/8000-8010:9000-9010`. No `auto` and no `all`. */
  readonly ports: string;
}

/** A rule in force. */
export interface ForwardEntry {
  /** Whose ports they are. */
  readonly from: "host" | "guest";
  /** Ports of each have rules of their own. */
  readonly protocol: "tcp" | "udp";
  /** `auto` and `all` are possible here. */
  readonly ports: string;
}

/** What a controller asks for. */
export type Request =
  | { readonly id: number; readonly do: "forward.add"; readonly rule: ForwardRule }
  | { readonly id: number; readonly do: "forward.remove"; readonly rule: ForwardRule }
  | { readonly id: number; readonly do: "forward.list" }
  | { readonly id: number; readonly do: "events"; readonly on: boolean }
  | { readonly id: number; readonly do: "close" };

/** What a controller answers. */
export interface Answer {
  /** {@linkcode Ask.ask} */
  readonly answer: number;
  readonly decision: FlowAnswer;
}

/** An error, to be made one again on the other side. */
export interface ErrorRecord {
  /**
   * Name of its class: `ConfigError`, `SysError`, `CommandError`, `PortSpecError`, `PolicyRuleError`, `RequestError`
   * for what is no request, or another.
   */
  readonly name: string;
  readonly message: string;
  /** Of a SysError: the call and the errno number. */
  readonly call?: string;
  readonly errno?: number;
  /** Of a ConfigError that the kernel is the reason of: the name of its errno number, such as `EADDRINUSE`. */
  readonly code?: string;
  /** Of a CommandError: 126 or 127. */
  readonly exitCode?: number;
}

/** All is in place, and the guest runs. */
export interface Ready {
  /** Number of the instance's process. */
  readonly pid: number;
  /** Name of the interface in the namespace; null: the guest is a virtual machine. */
  readonly interface: string | null;
  /** The guest's IPv4 address; null: it has none. */
  readonly address4: string | null;
  /** The guest's IPv6 address; null: it has none. */
  readonly address6: string | null;
  /** Path of the socket that a hypervisor connects to; null: none. */
  readonly socket: string | null;
}

/** A flow that the controller is to decide on (`--policy -`). */
export interface Ask {
  readonly ask: number;
  readonly flow: FlowQuestion;
}

/** What an instance says. */
export type Notice =
  | { readonly ready: Ready }
  | { readonly failed: ErrorRecord }
  | { readonly reply: number; readonly result?: unknown }
  | { readonly reply: number; readonly error: ErrorRecord }
  | { readonly opened: FlowSnapshot }
  | { readonly closed: FlowSnapshot }
  /** Number of events that were left out. */
  | { readonly lost: number }
  /** The last of a run that was not ended by force: everything was said, or that it was left out. */
  | { readonly end: true }
  | Ask;
