// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP between the guest's layer 2 and the host's sockets.
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
import type { PortRule } from "../forward/ports.ts";
import type { Packet } from "../wire/packet.ts";
import { socketEvent, turn } from "./from_socket.ts";
import { flushBatch, segmentFromTap } from "./from_tap.ts";
import { Listeners } from "./listen.ts";
import { keepAlive, tick, TICK_MS } from "./retransmit.ts";
import { TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

/** Whether a flow has ended and no list names it any more: its entry may be used for another. */
function mayBeFreed(data: Int32Array, d: number): boolean {
  return (data[d + W.EVENTS] & Ev.CLOSED) !== 0 && (data[d + W.DO] & (Do.TURN | Do.TIMED)) === 0;
}

/** TCP of one instance, as the loop sees it. */
export class Tcp {
  readonly #state: TcpState;
  readonly #listeners: Listeners;
  #tickAt = 0;

  /** Registers with the context's flow table. */
  constructor(ctx: Context) {
    const state = this.#state = new TcpState(ctx);
    this.#listeners = new Listeners(state);
    ctx.table.on(FlowType.TCP, {
      deferred: (i) => mayBeFreed(state.data, base(i)),
      timer: (i, nowMs) => {
        keepAlive(state, i, nowMs);
        return false;
      },
    });
  }

  /** Listens for connections to the guest. @throws SysError when a port cannot be bound */
  listen(rule: PortRule): void {
    this.#listeners.open(rule);
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

  /** Connections wait on a listener. */
  listenEvent(index: number): void {
    this.#listeners.event(index);
  }

  /** End of a turn of the loop: acknowledgements, data to the guest, timers. */
  turn(): void {
    const state = this.#state;
    if (state.timedCount > 0 && state.ctx.nowMs >= this.#tickAt) {
      this.#tickAt = state.ctx.nowMs + TICK_MS;
      tick(state);
    }
    turn(state);
  }

  /** How long the loop may sleep: 0 when work is left, -1 when nothing is timed. */
  timeoutMs(): number {
    if (this.#state.turnCount > 0) return 0;
    return this.#state.timedCount > 0 ? TICK_MS : -1;
  }

  /**
   * Whether the guest's last bytes are still under way: a connection that is neither reset nor closed by
   * the guest. Looks at all flows; for the end of an instance, not for every turn of its life.
   */
  unsettled(): boolean {
    const { data, ctx: { table } } = this.#state;
    for (let i = 0, seen = 0; seen < table.activeCount; i++) {
      if (table.stateOf(i) !== FlowState.ACTIVE) continue;
      seen++;
      if (table.typeOf(i) !== FlowType.TCP) continue;
      const events = data[base(i) + W.EVENTS];
      if (events & Ev.ESTABLISHED && !(events & (Ev.SOCK_FIN_SENT | Ev.CLOSED))) return true;
    }
    return false;
  }

  /** Stops listening. */
  close(): void {
    this.#listeners.close();
  }
}
