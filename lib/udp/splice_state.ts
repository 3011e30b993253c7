// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the splice path of UDP keeps: memory for a batch of datagrams, the messages to receive and send
 * it with, and the run that is being collected.
 *
 * @module
 */
import { FlowSide } from "../flow/side.ts";
import { Arena } from "../sys/arena.ts";
import { cmsgSpace, MessageVector } from "../sys/message_vector.ts";
import { PACKET_INFO_SPACE4, PACKET_INFO_SPACE6 } from "../sys/packet_info.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { descriptorLimit } from "../sys/rlimit.ts";
import { SOCKADDR_IN6_SIZE } from "../sys/socket.ts";

/** Datagrams received by one system call, and sent by one. */
export const SPLICE_MESSAGES = 64;
/** Bytes for each: the largest datagram, or super-datagram of UDP_GRO, there can be. */
export const SPLICE_SLOT = 1 << 16;

/** Spliced flows may hold one descriptor in this many: the others' flows need some, too. */
const SHARE_OF_DESCRIPTORS = 2;

/** How many spliced flows there may be where so many descriptors are left. */
export function spliceShare(descriptors: number): number {
  return Math.max(1, Math.floor(descriptors / SHARE_OF_DESCRIPTORS));
}

/** As many as the kernel allows itself (icmp_msgs_per_sec, ip-sysctl). */
const ERRORS_PER_SECOND = 1000;
const HEADERS_SIZE = 64 * 1024;
/** Room for one ICMP error: less than the minimum MTU of IPv6 (RFC 4443 §2.4(c)). */
const ERROR_SIZE = 1280;

/** The raw sockets that errors are sent by, per side and family. */
export const Raw = {
  /** not made yet */
  UNKNOWN: -1,
  /** not permitted here */
  NONE: -2,
} as const;

/**
 * The run being collected: *pieces*, each a datagram or super-datagram as received, which make up
 * messages of one piece or more.
 */
export class Run {
  /** Its flow (-1: none), and the side of it that the run goes to. */
  flow = -1;
  side = 0;
  /** Socket that sends it. */
  fd = -1;
  /** How many there are. */
  pieces = 0;
  messages = 0;
  /** Bytes of the destination and the source address each message carries; 0: connected socket. */
  nameBytes = 0;
  infoBytes = 0;
  /** Segment size of all super-datagrams of the run; 0: there is none yet. */
  segment = 0;
  /** Whether datagrams may be joined to super-datagrams. */
  joins = true;
  /** Where all its data lies, and per piece: offset and bytes. */
  memory: Arena;
  readonly offset: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);
  readonly pieceBytes: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);
  /** Per message: its first piece and how many it has. */
  readonly first: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);
  readonly count: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);
  /** Per message: its bytes, and the size of its datagrams if there are several, else 0. */
  readonly messageBytes: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);
  readonly segments: Int32Array<ArrayBuffer> = new Int32Array(SPLICE_MESSAGES);

  constructor(memory: Arena) {
    this.memory = memory;
  }
}

/** The splice path of one instance. Nothing but the constructor allocates. */
export class SpliceState {
  /** Message headers, socket addresses, control messages. */
  readonly arena: Arena = new Arena(HEADERS_SIZE);
  /** Payloads received: slot `k` starts at `k * SPLICE_SLOT`. */
  readonly payload: Arena = new Arena(SPLICE_MESSAGES * SPLICE_SLOT);
  readonly rx: MessageVector;
  readonly tx: MessageVector;
  /** For the parts of a super-datagram that has to be split. */
  readonly parts: MessageVector;
  /** Offset of the socket address that all messages of a run share. */
  readonly txName: number;
  /** Offset of their control messages: packet info ends, and a segment size begins, there. */
  readonly txSegment: number;

  readonly run: Run = new Run(this.payload);

  /** Spliced flows there are, and how many there may be: a share of the descriptors. */
  flows = 0;
  maxFlows: number = spliceShare(descriptorLimit());
  /** Time of the last failure for want of a resource: not tried again in the same turn. */
  shortAt = -1;
  /** A new flow's initiating side as the other end would have it. */
  readonly mirror: FlowSide = new FlowSide();

  /** Raw sockets for errors: {@linkcode Raw}, or a descriptor. */
  readonly raw: Int32Array<ArrayBuffer> = new Int32Array(4).fill(Raw.UNKNOWN);
  readonly errors: RateLimit = new RateLimit(ERRORS_PER_SECOND);
  /** The error being built: memory, its offset in {@linkcode arena} and a view from there. */
  readonly error: number;
  readonly errorView: Uint8Array<ArrayBuffer>;

  constructor() {
    const arena = this.arena, name = SOCKADDR_IN6_SIZE;
    const control = cmsgSpace(4) + PACKET_INFO_SPACE4 + PACKET_INFO_SPACE6;
    this.rx = new MessageVector(arena, SPLICE_MESSAGES, { name, control });
    this.tx = new MessageVector(arena, SPLICE_MESSAGES);
    this.parts = new MessageVector(arena, SPLICE_MESSAGES);
    this.txName = arena.alloc(name);
    this.txSegment = arena.alloc(PACKET_INFO_SPACE6 + cmsgSpace(2)) + PACKET_INFO_SPACE6;
    this.error = arena.alloc(ERROR_SIZE);
    this.errorView = arena.view(this.error, ERROR_SIZE);
    for (let k = 0; k < SPLICE_MESSAGES; k++) {
      this.rx.setData(k, this.payload.address(k * SPLICE_SLOT), SPLICE_SLOT);
    }
  }
}
