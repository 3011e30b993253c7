// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The words of a spliced TCP flow in its table entry, and the bits they hold.
 *
 * A flow has two sockets, those of its sides INI and TGT, and two directions, each named by the side
 * that it comes from: what is said of side 0 is about data from the socket of INI to that of TGT.
 *
 * @module
 */

/** Words in `FlowTable.data`; for a pair of words, the second is that of side TGT. */
export const SpliceWord = {
  /** the sockets of both sides */
  FD: 0,
  /** what has happened, bits of {@linkcode SpliceBit} */
  BITS: 2,
  /** number of the pipe that holds {@linkcode SpliceWord.STUCK}, and no meaning without */
  PIPE: 3,
  /** bytes read from the side that the other side's socket had no room for yet */
  STUCK: 5,
} as const;

/** State of the flow, and of its directions: shift the latter left by the side. */
export const SpliceBit = {
  /** connect(2) of side TGT is under way */
  CONNECTING: 1 << 0,
  /** both sockets are closed; the entry awaits the table's scan */
  CLOSED: 1 << 1,
  /** in the list of flows to go on with in the next turn */
  AGAIN: 1 << 2,
  /** a reset is being carried over */
  ENDING: 1 << 3,
  /** the side's socket has, or may have, something to read; no event tells of it once more */
  READ: 1 << 4,
  /** the other side's socket is full: an event will tell when it is not */
  FULL: 1 << 6,
  /** the side has shut down or failed: a short read does not mean that nothing is left */
  LAST: 1 << 8,
  /** end of file was read from the side, everything before it delivered, and it was passed on */
  END_SENT: 1 << 10,
  /** much comes from the side: move it without copying */
  BULK: 1 << 12,
  /** urgent data came from the side: splice(2) would stop at it for ever */
  URGENT: 1 << 14,
} as const;
