// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { check, E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { AF_NETLINK, NETLINK_SOCK_DIAG, SocketDiag } from "../../lib/sys/sock_diag.ts";
import { AF_UNIX, IPPROTO_TCP, newSocket, SOCK_DGRAM, SOCK_RAW } from "../../lib/sys/socket.ts";
import { requirements } from "../helpers/require.ts";

const TCP_LISTEN = 10; // include/net/tcp_states.h

function message(type: number, body: number[], length = 16 + body.length): number[] {
  const bytes = new Uint8Array(16 + body.length);
  new DataView(bytes.buffer).setUint32(0, length, true);
  new DataView(bytes.buffer).setUint16(4, type, true);
  bytes.set(body, 16);
  return [...bytes];
}

/** struct inet_diag_msg of a local port, and attributes behind it. */
function socket(port: number, attributes: number[] = []): number[] {
  const body = [10, TCP_LISTEN, 0, 0, port >> 8, port & 255, ...Array(66).fill(0), ...attributes];
  return message(20, body);
}

const done = message(3, [0, 0, 0, 0]);

/** What a question gives when a peer that is not the kernel answers with these datagrams. */
function answered(...datagrams: number[][]): [number, number[]] {
  const fds = new Int32Array(2);
  check(libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), "socketpair");
  const diag = new SocketDiag(fds[0]), ports = new Uint32Array(2048);
  for (const bytes of datagrams) {
    check(libc.send(fds[1], Uint8Array.from(bytes), bytes.length, 0), "send");
  }
  const result = diag.localPorts(IPPROTO_TCP, TCP_LISTEN, ports);
  diag.close();
  libc.close(fds[1]);
  const found = Array.from({ length: 65536 }, (_, port) => port);
  return [result, found.filter((port) => ports[port >> 5] & 1 << (port & 31))];
}

Deno.test("SocketDiag reads the sockets of both families, over several datagrams", () => {
  const answer = answered([...socket(22), ...socket(80)], socket(443), done, [
    ...socket(65535, [5, 0, 8, 0, 1]),
    0,
    0,
    0, // padding
    ...socket(1),
    ...done,
  ]);
  assertEquals(answer, [0, [1, 22, 80, 443, 65535]]);
  assertEquals(answered(done, done), [0, []]);
});

Deno.test("SocketDiag passes on the kernel's error", () => {
  const error = message(2, [
    ...new Uint8Array(Int32Array.of(-E.ENOENT).buffer),
    ...Array(16).fill(0),
  ]);
  assertEquals(answered(error), [-E.ENOENT, []]);
  assertEquals(answered(socket(22), error), [-E.ENOENT, [22]]);
});

Deno.test("SocketDiag gives up, and never waits, when an answer is cut or does not come", () => {
  assertEquals(answered(), [-E.EAGAIN, []]);
  assertEquals(answered(socket(22)), [-E.EAGAIN, [22]]);
  assertEquals(answered(message(20, [], 15)), [-E.EBADMSG, []]);
  assertEquals(answered(message(20, [], 0)), [-E.EBADMSG, []]);
  assertEquals(answered(message(20, [], 17)), [-E.EBADMSG, []]);
  assertEquals(answered(message(20, [], 0xffffffff)), [-E.EBADMSG, []]);
  assertEquals(answered(message(2, [])), [-E.EBADMSG, []]);
  assertEquals(answered(Array(33000).fill(0)), [-E.EMSGSIZE, []]);
  assertEquals(answered([], [1, 2, 3], message(20, [1, 2, 3, 4]), done, done), [0, []]);
});

Deno.test("SocketDiag does not listen to others than the kernel", requirements(), () => {
  const diag = new SocketDiag(newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
  const other = newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
  const address = new Uint8Array(12), size = new Uint32Array([12]);
  check(libc.bind(diag.fd, Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 12), "bind");
  check(libc.getsockname(diag.fd, address, size), "getsockname");
  const send = (bytes: number[]) =>
    libc.sendto(other, Uint8Array.from(bytes), bytes.length, 0, address, 12);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr, free = port === 9 ? 10 : 9;
  try {
    check(send([...socket(free), ...done]), "sendto");
    const ports = new Uint32Array(2048);
    const result = diag.localPorts(IPPROTO_TCP, TCP_LISTEN, ports);
    if (result === -E.ENOENT) return; // a kernel without it
    assertEquals(result, 0);
    assert(ports[port >> 5] & 1 << (port & 31));
    assertEquals(ports[0] & 1 << free, 0);
  } finally {
    listener.close();
    libc.close(other);
    diag.close();
  }
});
