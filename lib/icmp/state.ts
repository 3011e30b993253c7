// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What ping keeps: the words of a flow in the flow table, and the sockets, prepared messages and
 * scratch memory of one instance.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { FlowSide } from "../flow/side.ts";
import { DATA_WORDS } from "../flow/table.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { SLOT_FRAME_SIZE, TX_SLOTS } from "../link/link.ts";
import { Arena } from "../sys/arena.ts";
import { cmsgSpace, MessageVector } from "../sys/message_vector.ts";
import { PACKET_INFO_SPACE6 } from "../sys/packet_info.ts";
import { SOCKADDR_IN6_SIZE } from "../sys/socket.ts";

/** Words of a ping flow in `FlowTable.data`. */
export const W = {
  /** the flow's ping socket; -1: it uses the family's raw socket */
  FD: 0,
  /** identifier on the host's network; that of the guest is the port of its side */
  ID: 1,
  /** second of `Context.nowMs` in which the flow last carried anything */
  ACTIVE_AT: 2,
} as const;

/** How a family's requests reach the host's network. */
export const PingMode = {
  /** not at all */
  NONE: 0,
  /** one ping socket per flow */
  SOCKET: 1,
  /** one raw socket for all */
  RAW: 2,
} as const;

/** Identifiers there are (RFC 792: 16 bits). */
export const IDS = 0x10000;
/** MessageVector received by one system call: the transmit slots for bulk data. */
export const RX_MESSAGES = TX_SLOTS - 1;
/** Bytes taken from an error queue: what fits into an ICMPv6 error. */
export const ERROR_PAYLOAD = 1280;

const ARENA_SIZE = 16 * 1024;
const ERROR_CONTROL = 256; // sock_extended_err, offender and TTL
const WARNINGS_PER_SECOND = 1;

/** One IP version's way of sending. */
export class PingFamily {
  /** 4 or 6. */
  readonly version: number;
  mode: number = PingMode.NONE;
  /** The raw socket of {@linkcode PingMode}.RAW. */
  raw = -1;
  /** With a raw socket: flow index plus one per identifier on the network, 0: free. */
  ids: Int32Array<ArrayBuffer> = new Int32Array(0);
  /** With a raw socket: interface that `--outbound-if4/6` names, else 0. */
  ifindex = 0;
  /** Where to look for the next free identifier. */
  nextId = 0;

  constructor(version: number) {
    this.version = version;
  }
}

/** Ping of one instance. */
export class PingState {
  readonly ctx: Context;
  /** `ctx.table.data` and `ctx.table.sides`, at hand. */
  readonly data: Int32Array;
  readonly sides: Int32Array;
  /** `ctx.table.counters` and `ctx.table.phases`, likewise. */
  readonly counters: Float64Array;
  readonly phases: Uint8Array;
  readonly v4: PingFamily = new PingFamily(4);
  readonly v6: PingFamily = new PingFamily(6);
  /** Memory of message headers, addresses and control messages. */
  readonly arena: Arena = new Arena(ARENA_SIZE);
  readonly tx: MessageVector;
  readonly rx: MessageVector;
  readonly error: MessageVector;
  /** Offset of what {@linkcode error} receives: {@linkcode ERROR_PAYLOAD} bytes. */
  readonly errorPayload: number;
  /** Headers before the data that `rx` is aimed at. */
  rxHeader = 0;
  readonly ini: FlowSide = new FlowSide();
  readonly tgt: FlowSide = new FlowSide();
  /** Who sent a message that a socket received. */
  readonly address: Int32Array<ArrayBuffer> = new Int32Array(4);
  /** Where the request went that an error quotes. */
  readonly quoted: Int32Array<ArrayBuffer> = new Int32Array(4);
  /** Whether it was said that ping does not work. */
  told = false;
  readonly warnings: RateLimit = new RateLimit(WARNINGS_PER_SECOND);

  constructor(ctx: Context) {
    const { arena } = this;
    this.ctx = ctx;
    this.data = ctx.table.data;
    this.sides = ctx.table.sides;
    this.counters = ctx.table.counters;
    this.phases = ctx.table.phases;
    const ttl = cmsgSpace(4);
    const info = PACKET_INFO_SPACE6;
    this.tx = new MessageVector(arena, 1, { name: SOCKADDR_IN6_SIZE, control: ttl + info });
    this.rx = new MessageVector(arena, RX_MESSAGES, { name: SOCKADDR_IN6_SIZE, control: ttl });
    this.error = new MessageVector(arena, 1, { control: ERROR_CONTROL });
    this.errorPayload = arena.alloc(ERROR_PAYLOAD);
    this.error.setData(0, arena.address(this.errorPayload), ERROR_PAYLOAD);
  }

  /** Points receiving messages behind `headers` bytes of each transmit slot. */
  aim(headers: number): void {
    if (this.rxHeader === headers) return;
    this.rxHeader = headers;
    const { link } = this.ctx;
    for (let k = 0; k < RX_MESSAGES; k++) {
      const data = link.txOffset[k] + headers;
      this.rx.setData(k, link.arena.address(data), SLOT_FRAME_SIZE - headers);
    }
  }
}

const instances = new WeakMap<Context, PingState>();
let current: PingState | null = null;

/** Ping of this instance, set up when first asked for. */
export function pingState(ctx: Context): PingState {
  return current !== null && current.ctx === ctx ? current : selectState(ctx);
}

function selectState(ctx: Context): PingState {
  let state = instances.get(ctx);
  if (!state) {
    state = new PingState(ctx);
    instances.set(ctx, state);
  }
  return current = state;
}

/** First word of flow `i`'s data. */
export function base(i: number): number {
  return i * DATA_WORDS;
}

/** Notes traffic of flow `i`. */
export function touch(state: PingState, i: number): void {
  state.data[base(i) + W.ACTIVE_AT] = state.ctx.nowMs / 1000;
}
