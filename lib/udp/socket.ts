// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Options of the sockets that UDP uses.
 *
 * @module
 */
import { IP_RECVERR, IPV6_RECVERR, UDP_GRO } from "../sys/ip_options.ts";
import {
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  setOption,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SOL_SOCKET,
} from "../sys/socket.ts";

/** Receive buffer asked for; without CAP_NET_ADMIN the kernel gives what rmem_max allows (socket(7)). */
const RECEIVE_BUFFER = 4 << 20;
/** Whether the kernel may let us have more than that: it has not refused yet. */
let forced = true;

/** Options of every UDP socket; what the kernel does not know is done without. */
export function prepareSocket(fd: number, v4: boolean): void {
  setOption(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR, 1);
  setOption(fd, IPPROTO_UDP, UDP_GRO, 1);
  if (forced) forced = setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) >= 0;
  if (!forced) setOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
}
