// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What UDP keeps: the words of a flow in the flow table, and the prepared messages, listeners and
 * scratch memory of one instance.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { DATA_WORDS } from "../flow/table.ts";
import { FlowSide, INI, Pif, SIDE_PIF, SIDE_WORDS, TGT } from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { getLogger } from "@std/log";
import { TX_SLOTS } from "../link/link.ts";
import { Arena } from "../sys/arena.ts";
import { cmsgSpace, MessageVector } from "../sys/message_vector.ts";
import { PACKET_INFO_SPACE4, PACKET_INFO_SPACE6 } from "../sys/packet_info.ts";
import { SOCKADDR_IN6_SIZE } from "../sys/socket.ts";
import type { Address } from "../wire/address.ts";
import { Packet } from "../wire/packet.ts";
import { SpliceState } from "./splice_state.ts";

/** Words of a UDP flow in `FlowTable.data`. */
export const W = {
  /** the flow's own connected socket, which leads to its target; -1: it has none but its listener's */
  FD: 0,
  /** index of the listener it came by, plus one; 0: started by the guest through the tap */
  LISTENER: 1,
  /** second of `Context.nowMs` in which the flow last carried anything */
  ACTIVE_AT: 2,
  /** bits of {@linkcode Flag} */
  FLAGS: 3,
  /** the guest's TTL or hop limit as set on the socket, plus {@linkcode PROBING} */
  PATH: 4,
  /** interface index for a link-local peer, else 0 */
  SCOPE: 5,
} as const;

/** Bits of {@linkcode W}.FLAGS. */
export const Flag = {
  /** the guest has sent something */
  FROM_GUEST: 1,
  /** the host's side has sent something */
  TO_GUEST: 2,
  /** goes socket to socket: neither side is on the tap */
  SPLICED: 4,
  /** spliced datagrams are not joined: the kernel has refused it */
  SINGLE: 8,
  /** leads to a resolver: the policy learns names from its answers */
  NAMES: 16,
  /** that resolver is on the host itself */
  HERE: 32,
} as const;

const BOTH_WAYS = Flag.FROM_GUEST | Flag.TO_GUEST;

/** In {@linkcode W}.PATH: "don't fragment" is enforced, as for a path MTU probe. */
export const PROBING = 0x100;

/** Datagrams sent by one system call: all frames of a batch, or the parts of a split super-frame. */
export const TX_MESSAGES = 64;
/** Datagrams received by one system call: the transmit slots for bulk data. */
export const RX_MESSAGES = TX_SLOTS - 1;
/** Bytes of payload taken from an error queue: what fits into an ICMPv6 error. */
export const ERROR_PAYLOAD = 1280;

const ARENA_SIZE = 64 * 1024;
const ERROR_CONTROL = 256; // sock_extended_err, offender and packet info
const WARNINGS_PER_SECOND = 1;

/** One socket that waits for datagrams to a forwarded port. See `listeners.ts`. */
export interface Listener {
  /** -1: closed, the place may be used again */
  fd: number;
  /** Whose port it is: `Pif.HOST`, or `Pif.SPLICE` for the guest's namespace. */
  pif: number;
  port: number;
  /** Port on the other side. */
  to: number;
  /** Address on the other side; null: the usual one. */
  target: Address | null;
  /** What it was bound to. */
  address: Address | null;
  device: string | null;
  /** Flows that use it. */
  flows: number;
  /** Nobody listens any more: it is kept for its flows. */
  retired: boolean;
  /** Whether the last datagram was IPv4, and was spliced: where the next one is received. */
  v4: boolean;
  spliced: boolean;
}

/** Datagrams collected for one `sendmmsg`. */
export interface Batch {
  /** -1: none */
  flow: number;
  count: number;
  /** bytes of the destination and the source address each datagram carries; 0: connected socket */
  nameBytes: number;
  infoBytes: number;
}

/** UDP of one instance. */
export class UdpState {
  readonly ctx: Context;
  /** `ctx.table.data` and `ctx.table.sides`, at hand. */
  readonly data: Int32Array;
  readonly sides: Int32Array;
  /** `ctx.table.counters` and `ctx.table.phases`, likewise. */
  readonly counters: Float64Array;
  readonly phases: Uint8Array;
  /** Memory of all message headers, addresses and control messages. */
  readonly arena: Arena = new Arena(ARENA_SIZE);
  readonly tx: MessageVector;
  /** For a super-datagram with UDP_SEGMENT. */
  readonly txSuper: MessageVector;
  readonly rx: MessageVector;
  /** For listeners: with the sender's and the destination address. */
  readonly rxNamed: MessageVector;
  readonly error: MessageVector;
  /** Offset of what {@linkcode error} receives: {@linkcode ERROR_PAYLOAD} bytes. */
  readonly errorPayload: number;
  /** Offset of the socket address that all messages of a named batch share. */
  readonly txName: number;
  /** Offset of their control messages: packet info ends, and a segment size begins, at `txSegment`. */
  readonly txSegment: number;
  /** Headers before the payload that the receiving messages of `rx` and `rxNamed` are aimed at. */
  rxHeader = 0;
  rxNamedHeader = 0;
  readonly batch: Batch = { flow: -1, count: 0, nameBytes: 0, infoBytes: 0 };
  /** Per message of the batch: where the guest's IP packet begins in the link's arena, and its payload's bytes. */
  readonly batchL3: Int32Array<ArrayBuffer> = new Int32Array(TX_MESSAGES);
  readonly batchBytes: Int32Array<ArrayBuffer> = new Int32Array(TX_MESSAGES);
  /** Flow of the last datagram from the guest in this batch of frames, whose words are in `key`. */
  lastFlow = -1;
  readonly key: FlowSide = new FlowSide();
  readonly hostKey: FlowSide = new FlowSide();
  readonly tgt: FlowSide = new FlowSide();
  readonly offender: Int32Array<ArrayBuffer> = new Int32Array(4);
  /** Parsed again when an error is about a guest's packet of the batch. */
  readonly packet: Packet = new Packet();
  readonly listeners: Listener[] = [];
  /** Places in {@linkcode listeners} that can be used again. */
  readonly freeListeners: number[] = [];
  /** Listeners that are kept for their flows, by what they are bound to. */
  readonly retired: Map<string, number> = new Map();
  /** Flows that go socket to socket. */
  readonly splice: SpliceState = new SpliceState();
  /** Default TTL and hop limit of the host, which need not be set on a socket. */
  defaultTtl4 = 0;
  defaultTtl6 = 0;
  readonly #warnings = new RateLimit(WARNINGS_PER_SECOND);

  constructor(ctx: Context) {
    const arena = this.arena;
    this.ctx = ctx;
    this.data = ctx.table.data;
    this.sides = ctx.table.sides;
    this.counters = ctx.table.counters;
    this.phases = ctx.table.phases;
    const gro = cmsgSpace(4);
    this.tx = new MessageVector(arena, TX_MESSAGES);
    this.txSuper = new MessageVector(arena, 1);
    this.rx = new MessageVector(arena, RX_MESSAGES, { control: gro });
    this.rxNamed = new MessageVector(arena, RX_MESSAGES, {
      name: SOCKADDR_IN6_SIZE,
      control: gro + PACKET_INFO_SPACE4 + PACKET_INFO_SPACE6,
    });
    this.error = new MessageVector(arena, 1, { name: SOCKADDR_IN6_SIZE, control: ERROR_CONTROL });
    this.errorPayload = arena.alloc(ERROR_PAYLOAD);
    this.error.setData(0, arena.address(this.errorPayload), ERROR_PAYLOAD);
    this.txName = arena.alloc(SOCKADDR_IN6_SIZE);
    this.txSegment = arena.alloc(PACKET_INFO_SPACE6 + cmsgSpace(2)) + PACKET_INFO_SPACE6;
  }

  /** Warns, at most once a second. */
  warn(message: string): void {
    if (this.#warnings.allow(this.ctx.nowMs)) getLogger().warn(message);
  }
}

const instances = new WeakMap<Context, UdpState>();
let current: UdpState | null = null;

/** UDP of this instance, set up when first asked for. */
export function udpState(ctx: Context): UdpState {
  return current !== null && current.ctx === ctx ? current : selectState(ctx);
}

function selectState(ctx: Context): UdpState {
  let state = instances.get(ctx);
  if (!state) {
    state = new UdpState(ctx);
    instances.set(ctx, state);
  }
  return current = state;
}

/** First word of flow `i`'s data. */
export function base(i: number): number {
  return i * DATA_WORDS;
}

/** Which side of flow `i` is on the tap: INI or TGT. */
export function sideOnTap(state: UdpState, i: number): number {
  return state.sides[2 * i * SIDE_WORDS + SIDE_PIF] === Pif.TAP ? INI : TGT;
}

/** Where the words of flow `i`'s side on the tap start in `FlowTable.sides`. */
export function tapSide(state: UdpState, i: number): number {
  return (2 * i + sideOnTap(state, i)) * SIDE_WORDS;
}

/** Where the words of flow `i`'s other side start. */
export function hostSide(state: UdpState, i: number): number {
  return (2 * i + 1 - sideOnTap(state, i)) * SIDE_WORDS;
}

/** Notes traffic of flow `i` in one direction. */
export function touch(state: UdpState, i: number, flag: number): void {
  const at = base(i);
  const flags = state.data[at + W.FLAGS] |= flag;
  if ((flags & BOTH_WAYS) === BOTH_WAYS) state.phases[i] = Phase.OPEN;
  state.data[at + W.ACTIVE_AT] = state.ctx.nowMs / 1000;
}
