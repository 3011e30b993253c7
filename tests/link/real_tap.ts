// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A tap in a network namespace, with the guest's kernel on its other side, and the link over it.
 *
 * @module
 */
import { type Link, TX_CONTROL } from "../../lib/link/link.ts";
import { TapLink } from "../../lib/link/tap.ts";
import { check } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { openGuestNetwork } from "../../lib/sys/namespace.ts";
import { bindSocket, familyOf, newSocket } from "../../lib/sys/socket.ts";
import { negotiateOffloads } from "../../lib/sys/tun.ts";
import type { Context } from "../../lib/context.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { address, GUEST_MAC, mac, OUR_MAC } from "../helpers/fake_context.ts";
import { until } from "../helpers/run.ts";

/** How long the guest's kernel may take to send a frame, in milliseconds. */
const FRAME_TIMEOUT_MS = 20_000;
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h

/** Ends of a frame to the guest, for builders that make frames from it. */
export const TO_GUEST = { ourMac: mac(GUEST_MAC), guestMac: mac(OUR_MAC) } as unknown as Context;

/** Commands that spare the guest's kernel the search for its neighbours. */
export const KNOWN_NEIGHBOURS = `
neigh add 192.0.2.1 lladdr ${OUR_MAC} dev tap0 nud permanent
neigh add 2001:db8::1 lladdr ${OUR_MAC} dev tap0 nud permanent`;

/** A frame as received, with its offload fields. */
export interface Received {
  bytes: Uint8Array<ArrayBuffer>;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
}

/** Copies frame `k` of the last batch. */
export function receivedFrame(link: Link, k: number): Received {
  const off = link.rxOffset[k]!;
  return {
    bytes: link.arena.u8.slice(off, off + link.rxLength[k]!),
    gsoSize: link.rxGsoSize[k]!,
    csumStart: link.rxCsumStart[k]!,
    csumOffset: link.rxCsumOffset[k]!,
  };
}

/** The namespace, its tap `tap0` (192.0.2.2/24, 2001:db8::2/64, MTU 1500) and the link. */
export class RealTap {
  readonly namespace: TestNamespace;
  readonly link: TapLink;
  readonly uso: boolean;
  readonly #sockets: number[] = [];

  private constructor(namespace: TestNamespace) {
    this.namespace = namespace;
    const path = new TextEncoder().encode(`/run/netns/${namespace.name}\0`);
    const net = check(libc.open(path, O_CLOEXEC, 0), "open");
    const network = openGuestNetwork({ user: -1, net }, { ifname: "tap0", vnetHeader: true });
    libc.close(network.netlink);
    libc.close(net);
    const offloads = negotiateOffloads(network.tap);
    this.uso = offloads.uso;
    this.link = new TapLink(network.tap, offloads);
  }

  /** Makes it, with more `ip` commands after the tap is up. */
  static async create(commands = KNOWN_NEIGHBOURS): Promise<RealTap> {
    const namespace = await TestNamespace.create();
    try {
      const tap = new RealTap(namespace);
      await namespace.batch(`link set tap0 address ${GUEST_MAC} mtu 1500 up
addr add 192.0.2.2/24 dev tap0
addr add 2001:db8::2/64 dev tap0 nodad${commands}`);
      return tap;
    } catch (error) {
      await namespace[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** A non-blocking socket of the guest, bound to `at` and a free port. */
  socket(at: string, type: number): number {
    const words = address(at);
    const fd = this.namespace.enter(() => newSocket(familyOf(words, 0), type, 0));
    check(fd, "socket");
    this.#sockets.push(fd);
    check(bindSocket(fd, words, 0, 0), "bind");
    return fd;
  }

  /** Waits for a frame from the guest's kernel; drops those before it. */
  async frame(wanted: (frame: Received) => boolean): Promise<Received> {
    let found: Received | undefined;
    await until(
      () => {
        const n = this.link.receive(1);
        if (n < 0) throw new Error("The tap is gone");
        if (n === 1 && wanted(receivedFrame(this.link, 0))) found = receivedFrame(this.link, 0);
        return found !== undefined;
      },
      FRAME_TIMEOUT_MS,
      1,
    );
    if (!found) throw new Error("The guest's kernel did not send the frame");
    return found;
  }

  /** Sends a frame; arguments as for {@linkcode Link.send}. */
  send(frame: Uint8Array, headers = 0, start = 0, field = 0, gsoType = 0, gsoSize = 0): number {
    const { link } = this;
    link.arena.u8.set(frame, link.txOffset[TX_CONTROL]!);
    return link.send(TX_CONTROL, frame.length, headers, start, field, gsoType, gsoSize);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const fd of this.#sockets) libc.close(fd);
    this.link.close();
    await this.namespace[Symbol.asyncDispose]();
  }
}
