// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The words of a TCP flow in its table entry, and the bits they hold.
 *
 * @module
 */
import { DATA_WORDS } from "../flow/table.ts";

/**
 * Words of a TCP flow in `FlowTable.data`. Sequence numbers are int32 and compared by difference;
 * times are milliseconds of `Context.nowMs` truncated to int32, compared likewise.
 */
export const W = {
  /** the host socket */
  FD: 0,
  /** what has happened to the connection, bits of {@linkcode Ev} */
  EVENTS: 1,
  /** work that is due, bits of {@linkcode Do} */
  DO: 2,
  /** next sequence number to send to the guest (SND.NXT) */
  SEQ_TO_TAP: 3,
  /** lowest sequence number the guest has not acknowledged (SND.UNA) */
  SEQ_UNACKED: 4,
  /** highest SEQ_TO_TAP so far: above it after a rewind */
  SEQ_MAX: 5,
  /** next sequence number expected from the guest (RCV.NXT) */
  SEQ_FROM_TAP: 6,
  /** while retransmitting: SEQ_MAX when the loss was noticed; duplicate ACKs below it are expected */
  SEQ_RECOVER: 7,
  /** the guest's window in bytes */
  WND_FROM_TAP: 8,
  /** the guest's window shift (RFC 7323) */
  WND_SHIFT: 9,
  /** the window last announced to the guest, in bytes, and the highest sequence number that one reached */
  WND_TO_TAP: 10,
  WND_EDGE: 37,
  /** payload bytes per packet to the guest */
  MSS: 11,
  /** payload bytes per frame to the guest: a multiple of MSS */
  MAX_PAYLOAD: 12,
  /** bytes the guest acknowledged that still lie in the socket's receive queue */
  ACKED: 13,
  DUP_ACKS: 14,
  /** timeouts in a row without progress */
  RETRIES: 15,
  /** when the guest last acknowledged something new, or a timed segment was sent */
  PROGRESS_AT: 16,
  /** when the guest last sent anything */
  ACTIVE_AT: 17,
  /** first and last block of data that the socket had no room for, -1: none */
  OVERFLOW_HEAD: 18,
  OVERFLOW_TAIL: 19,
  OVERFLOW_BYTES: 20,
  /** bytes of the first block already sent */
  OVERFLOW_OFFSET: 21,
  /** our window shift: 0 when the guest does not scale */
  OUR_SHIFT: 22,
  /** retransmission timeout, smoothed round trip × 8 and variation × 4, in ms (RFC 6298) */
  RTO: 24,
  SRTT8: 25,
  RTTVAR4: 26,
  /** end of the segment being timed, and when it was sent; RTT_AT -1: none */
  RTT_SEQ: 27,
  RTT_AT: 28,
  /** sequence number of our FIN, valid from SOCK_FIN_RCVD on */
  FIN_SEQ: 34,
  /** room in the socket's send buffer when it was last looked at, and bytes sent since */
  SEND_SPACE: 35,
  UNMEASURED: 36,
  /** keepalive probes sent without an answer */
  PROBES: 33,
} as const;

/** What has happened to a connection. */
export const Ev = {
  /** a peer connected to our listener; SYN sent to the guest */
  SOCK_ACCEPTED: 1,
  /** the guest sent SYN; connect(2) is under way */
  TAP_SYN_RCVD: 2,
  /** the socket is connected, SYN-ACK sent to the guest */
  TAP_SYN_ACK_SENT: 4,
  ESTABLISHED: 8,
  SOCK_FIN_RCVD: 16,
  SOCK_FIN_SENT: 32,
  TAP_FIN_RCVD: 64,
  TAP_FIN_SENT: 128,
  TAP_FIN_ACKED: 256,
  CLOSED: 512,
} as const;

/** Work due for a flow. */
export const Do = {
  /** acknowledge to the guest */
  ACK: 1,
  /** in the queue of flows to look after at the end of the turn */
  TURN: 2,
  /** the socket has, or may have, data that was not peeked yet */
  READ: 4,
  /** the peer has shut down: read on until 0 */
  RDHUP: 8,
  /** in the list of flows with something in flight */
  TIMED: 16,
  /** send from SEQ_UNACKED again, once what was acknowledged is dropped from the socket */
  REWIND: 32,
  /** the kernel keeps the peek offset (SO_PEEK_OFF) */
  PEEK_OFF: 64,
  /** the peer sent urgent data: peeks stop at its mark, so a short one does not mean "no more" */
  URGENT: 128,
  /** payload was not kept for lack of room: no window until what was kept has been sent */
  FULL: 256,
  /** in the list of flows that wait for room on the link */
  PARKED: 512,
} as const;

/** First word of flow `i`'s data. */
export function base(i: number): number {
  return i * DATA_WORDS;
}
