// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP between the guest's layer 2 and the host's sockets, and socket to socket between host and
 * namespace (`splice.ts`).
 *
 * Theory of operation. There is no TCP stack here: two kernels have one each, and this code reflects
 * what one does to the other. Per connection there is one host socket, one entry of the flow table
 * (`words.ts`) and nothing else: no queue, no timer, no second descriptor.
 *
 * - Beginning (`setup.ts`): the guest's SYN becomes connect(2), whose outcome answers the SYN; a
 *   connection accepted on a listener (`listen.ts`) becomes our SYN to the guest.
 * - Guest to socket (`from_tap.ts`): in-order payload of a batch of frames goes out in one sendmsg(2)
 *   from where it was received. It is acknowledged when the host's kernel has taken it, once per
 *   batch: that keeps a guest on this machine fast, and one whose peer is far away is held back by the
 *   window that the socket's buffer leaves. What a full socket does not take waits in a bounded pool
 *   (`overflow.ts`), and the window shrinks by it.
 * - Socket to guest (`from_socket.ts`): data is peeked into frames and dropped from the socket when
 *   the guest acknowledges it, so the socket is the retransmission queue. Frames carry up to 64 KiB
 *   and leave checksum and segmentation to the guest's kernel.
 * - Loss (`retransmit.ts`): three duplicate acknowledgements or a timeout go back to the lowest
 *   unacknowledged byte. The same list of flows in flight probes closed windows.
 * - End (`close.ts`): FIN and RST are carried across in both directions.
 *
 * Not done: urgent data (it is carried in line, the pointer is not), SACK, timestamps, TCP Fast Open.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { FlowState, FlowType } from "../flow/types.ts";
import type { ListenSpec } from "../forward/listener.ts";
import { PipePool } from "../sys/splice.ts";
import type { Packet } from "../wire/packet.ts";
import { socketEvent, turn } from "./from_socket.ts";
import { flushBatch, segmentFromTap } from "./from_tap.ts";
import { Listeners } from "./listen.ts";
import { keepAlive, tick, TICK_MS } from "./retransmit.ts";
import { spliceEvent, spliceMayBeFreed, spliceTurn, spliceUnsettled } from "./splice.ts";
import { SpliceState } from "./splice_state.ts";
import { TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

const IN_A_LIST = Do.TURN | Do.TIMED | Do.PARKED;

/** Whether a flow has ended and no list names it any more: its entry may be used for another. */
function mayBeFreed(data: Int32Array, d: number): boolean {
  return (data[d + W.EVENTS] & Ev.CLOSED) !== 0 && (data[d + W.DO] & IN_A_LIST) === 0;
}

/** TCP of one instance, as the loop sees it. */
export class Tcp {
  readonly #state: TcpState;
  readonly #splice: SpliceState;
  readonly #listeners: Listeners;
  #tickAt = 0;

  /**
   * Registers with the context's flow table.
   *
   * @param pipes where spliced flows borrow pipes from
   */
  constructor(ctx: Context, pipes: PipePool = new PipePool()) {
    const state = this.#state = new TcpState(ctx);
    const splice = this.#splice = new SpliceState(ctx, state.warnings, pipes);
    this.#listeners = new Listeners(state, splice);
    ctx.table.on(FlowType.TCP, {
      deferred: (i) => mayBeFreed(state.data, base(i)),
      timer: (i, nowMs) => {
        keepAlive(state, i, nowMs);
        return false;
      },
    });
    ctx.table.on(FlowType.TCP_SPLICE, { deferred: (i) => spliceMayBeFreed(splice, i) });
  }

  /**
   * Listens for connections to the guest, or from it for `Pif.SPLICE`.
   *
   * @returns index of the listener, or a negative errno (`EADDRINUSE`, `EACCES`, `EMFILE`,
   *   `EADDRNOTAVAIL`, `ENODEV` …)
   */
  listen(spec: ListenSpec): number {
    return this.#listeners.open(spec);
  }

  /** Stops listening; connections stay. Harmless when that was done. */
  unlisten(index: number): void {
    this.#listeners.close(index);
  }

  /** A TCP packet from the guest; it stays where it is until {@linkcode Tcp.flush}. */
  fromTap(packet: Packet): void {
    segmentFromTap(this.#state, packet);
  }

  /** The batch of frames is over: their memory is about to be used again. */
  flush(): void {
    flushBatch(this.#state);
  }

  /** Events of flow `i`'s socket. */
  event(i: number, events: number): void {
    socketEvent(this.#state, i, events);
  }

  /** Events of one socket of a spliced flow: `2 * flow + side`. */
  spliceEvent(data: number, events: number): void {
    spliceEvent(this.#splice, data, events);
  }

  /** Connections wait on a listener. */
  listenEvent(index: number): void {
    this.#listeners.event(index);
  }

  /** The policy's question at a place was answered: an accepted connection may wait for that. */
  answered(place: number): void {
    this.#listeners.answered(place);
  }

  /** End of a turn of the loop: acknowledgements, data to the guest, what is left over, timers. */
  turn(): void {
    const state = this.#state;
    this.#listeners.turn();
    spliceTurn(this.#splice);
    if (state.timedCount > 0 && state.ctx.nowMs >= this.#tickAt) {
      this.#tickAt = state.ctx.nowMs + TICK_MS;
      tick(state);
    }
    if (state.parkedCount > 0 && state.ctx.link.writable) state.unpark();
    turn(state);
  }

  /** How long the loop may sleep: 0 when work is left, -1 when nothing is timed. */
  timeoutMs(): number {
    if (this.#state.turnCount > 0 || this.#splice.againCount > 0) return 0;
    if (this.#listeners.pending) return 0;
    return this.#state.timedCount > 0 ? TICK_MS : -1;
  }

  /** Whether {@linkcode Tcp.second} has something to do sooner or later. */
  get timed(): boolean {
    return this.#splice.pipes.timed || this.#listeners.starved;
  }

  /** What is done about once a second. */
  second(): void {
    this.#splice.pipes.tick();
    this.#listeners.retry();
  }

  /**
   * Whether the guest's last bytes are still under way: a connection that is neither reset nor closed by
   * the guest. Looks at all flows; for the end of an instance, not for every turn of its life.
   */
  unsettled(): boolean {
    if (this.#listeners.pending || this.#listeners.holding) return true;
    const { data, ctx: { table } } = this.#state;
    for (let i = 0, seen = 0; seen < table.activeCount; i++) {
      if (table.stateOf(i) !== FlowState.ACTIVE) continue;
      seen++;
      const type = table.typeOf(i);
      if (type === FlowType.TCP_SPLICE && spliceUnsettled(this.#splice, i)) return true;
      if (type !== FlowType.TCP) continue;
      const events = data[base(i) + W.EVENTS];
      if (events & Ev.ESTABLISHED && !(events & (Ev.SOCK_FIN_SENT | Ev.CLOSED))) return true;
    }
    return false;
  }

  /** Stops listening, and lets go of what no connection uses. */
  close(): void {
    this.#listeners.closeAll();
    this.#splice.pipes.close();
  }
}
