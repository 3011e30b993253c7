// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What an observer sees of a flow.
 *
 * @module
 */

/** How far a flow is. The table stores the index in {@linkcode FLOW_PHASES}. */
export const Phase = {
  /** only its initiator was heard so far: connecting, unanswered */
  OPENING: 0,
  /** both sides were heard */
  OPEN: 1,
  /** one side, or both, has ended its direction */
  CLOSING: 2,
  /** over; the table frees it in its next scan */
  CLOSED: 3,
} as const;

/** Name of a phase. */
export type FlowPhase = "opening" | "open" | "closing" | "closed";

/** Names of {@linkcode Phase}, by number. */
export const FLOW_PHASES: readonly FlowPhase[] = ["opening", "open", "closing", "closed"];

/** One side of a flow as text. */
export interface SideSnapshot {
  /** The interface: `TAP`, `HOST` or `SPLICE` (sockets in the guest's namespace). */
  readonly pif: string;
  /** The remote party's address. */
  readonly address: string;
  /** Its port; of a ping, the identifier. */
  readonly port: number;
  /**
   * The address that we use towards it: as seen from the guest, that of whom it talks to. Unspecified (`0.0.0.0`, `::`)
   * where the kernel chose it, which is usual for targets on the host's side.
   */
  readonly ourAddress: string;
  /** The port that we use towards it; 0 where the kernel chose it. */
  readonly ourPort: number;
}

/** One flow at one moment. */
export interface FlowSnapshot {
  /** Place in the table; used again when the flow has ended. */
  readonly index: number;
  /** Counts the uses of that place: with {@linkcode index} it names a flow for good. */
  readonly generation: number;
  /** Name of the type, as in log lines: `TCP connection`, `UDP flow`. */
  readonly type: string;
  /** IP protocol number: 6, 17, 1 or 58; 0 for a type of one's own. */
  readonly protocol: number;
  /** How far it is. */
  readonly state: FlowPhase;
  /** Who began it. */
  readonly initiator: SideSnapshot;
  /** Where it goes. */
  readonly target: SideSnapshot;
  /** Payload bytes that came from the initiator. */
  readonly bytesFromInitiator: number;
  /** Payload bytes that came from the target. */
  readonly bytesFromTarget: number;
  /** Milliseconds since it began. */
  readonly ageMs: number;
  /** What a policy called it; null: nothing. */
  readonly label: string | null;
}
