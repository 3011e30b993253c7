// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a policy written as a program is asked about a new flow, and what it may answer.
 *
 * @module
 */

/** A flow that the guest wants to begin. */
export interface FlowQuestion {
  /** `icmp` is a ping, of IPv6 as well. */
  readonly protocol: "tcp" | "udp" | "icmp";
  /** `tap`: by the guest's interface; `namespace`: by a forwarded port of its namespace (`-T`, `-U`). */
  readonly via: "tap" | "namespace";
  /** Who asks, as the guest says: it may be forged. */
  readonly source: string;
  /** Its port; of a ping, the identifier. */
  readonly sourcePort: number;
  /** Where the flow would really go: a mapped address is the host's own here. */
  readonly address: string;
  /** Port, 1–65535; of a ping 0. */
  readonly port: number;
  /** The address as the guest has it. */
  readonly namedAddress: string;
  /** The port as the guest has it. */
  readonly namedPort: number;
  /**
   * Names that a configured resolver has told the guest this address for, latest first, lower case, without a final
   * dot. Others may be served from the same address.
   */
  readonly names: readonly string[];
  /** Whether it leads to port 53 of a configured resolver, without which there are no names. */
  readonly resolver: boolean;
}

/**
 * What becomes of a flow: `reject` is RST for TCP, and ICMP "administratively prohibited" for others;
 * `prohibit` that ICMP message for TCP too; `drop` is silence.
 */
export type FlowVerdict = "allow" | "reject" | "prohibit" | "drop";

/** A verdict with more. */
export interface FlowDecision {
  /** What becomes of the flow. */
  readonly verdict: FlowVerdict;
  /**
   * With `allow`: where the flow goes instead, `ADDRESS`, `IPv4:PORT` or `[IPv6]:PORT`; or `:PORT`, another port of
   * the address that it was going to. The host's own loopback is possible.
   *
   * The address is of the flow's own family, that of {@linkcode FlowQuestion.address}: with another one the answer
   * is wrong, and the flow rejected. A guest that has both asks for both, so a name's flows are best given
   * `flow.address.includes(":") ? "[::1]:8080" : "127.0.0.1:8080"`.
   */
  readonly target?: string;
  /** What the flow is called, in snapshots and events: at most 63 bytes. */
  readonly label?: string;
}

/** The answer to a {@linkcode FlowQuestion}. */
export type FlowAnswer = FlowVerdict | FlowDecision;
