// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  BoundPorts,
  LINES_END,
  portsOfLines,
  TCP_LISTEN,
  UDP_UNCONNECTED,
} from "../../lib/forward/bound_ports.ts";
import { check, SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { AF_NETLINK, NETLINK_SOCK_DIAG } from "../../lib/sys/sock_diag.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  newSocket,
  SOCK_DGRAM,
  SOCK_RAW,
  SOCK_STREAM,
} from "../../lib/sys/socket.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";
import { random } from "../helpers/random_specs.ts";

const ROOT = requirements();

/** Lines as a kernel wrote them, IPv4 padded to 149 characters, IPv6 not padded. */
const TCP =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41184 1 00000000f3c2a2d5 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41185 1 000000007e4a1b1c 100 0 0 10 0
  10: 0100007F:FFFF 00000000:0000 0A 00000000:00000001 00:00000000 00000000     0        0 41190 1 0000000000000000 100 0 0 10 0
`;
const TCP6 =
  `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24541 1 0000000000000000 100 0 0 10 0
   1: B80D0120000000000000000001000000:0001 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 24542 1 0000000000000000 100 0 0 10 0
`;
const ESTABLISHED =
  `   2: 0100007F:C350 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 41999 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:0017 0100007F:C350 0A 00000000:00000000 00:00000000 00000000     0        0 42000 1 0000000000000000 100 0 0 10 0
`;
const UDP =
  `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  410: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17233 2 0000000000000000 0
  411: 0100007F:0045 0100007F:0035 01 00000000:00000000 00:00000000 00000000     0        0 17234 2 0000000000000000 0
14912: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 17235 2 0000000000000000 0
`;

const encode = (text: string) => new TextEncoder().encode(text);

function listed(ports: Uint32Array): number[] {
  const all: number[] = [];
  ports.forEach((word, w) => {
    for (let bit = 0; word !== 0 && bit < 32; bit++) if (word & 1 << bit) all.push(32 * w + bit);
  });
  return all;
}

/** Ports of a text that arrives in pieces, kept together as a reader does. */
function read(pieces: readonly string[], state: number, first: boolean): number[] {
  const ports = new Uint32Array(2048);
  let kept = "";
  for (const piece of pieces) {
    // what lies behind the end must not count
    const text = kept + piece, bytes = encode(`${text}   9: 0:0BAD 0:0000 0A \n`);
    const rest = portsOfLines(bytes, 0, encode(text).length, state, first, ports);
    if (rest === LINES_END) break;
    kept = text.slice(rest);
  }
  return listed(ports);
}

Deno.test("portsOfLines() finds listening ports of both families and passes the heading over", () => {
  assertEquals(read([TCP], TCP_LISTEN, true), [22, 8080, 65535]);
  assertEquals(read([TCP6], TCP_LISTEN, true), [1, 80]);
  assertEquals(read([""], TCP_LISTEN, true), []);
  assertEquals(read([TCP.slice(0, TCP.indexOf("\n") + 1)], TCP_LISTEN, true), []);
});

Deno.test("portsOfLines() finds unconnected UDP sockets between others", () => {
  assertEquals(read([UDP], UDP_UNCONNECTED, false), [53, 68]);
  assertEquals(read([UDP], TCP_LISTEN, false), []);
});

Deno.test("portsOfLines() stops behind the sockets that come first", () => {
  assertEquals(read([TCP + ESTABLISHED], TCP_LISTEN, true), [22, 8080, 65535]);
  assertEquals(read([TCP + ESTABLISHED], TCP_LISTEN, false), [22, 23, 8080, 65535]);
  const bytes = encode(ESTABLISHED);
  const ports = new Uint32Array(2048);
  assertEquals(portsOfLines(bytes, 0, bytes.length, TCP_LISTEN, true, ports), LINES_END);
});

Deno.test("portsOfLines() reads a text that was cut anywhere", () => {
  const cases: [string, number, boolean, number[]][] = [
    [TCP + ESTABLISHED, TCP_LISTEN, true, [22, 8080, 65535]],
    [TCP6, TCP_LISTEN, true, [1, 80]],
    [UDP, UDP_UNCONNECTED, false, [53, 68]],
  ];
  for (const [text, state, first, ports] of cases) {
    for (let at = 0; at <= text.length; at++) {
      assertEquals(read([text.slice(0, at), text.slice(at)], state, first), ports, `cut at ${at}`);
    }
    assertEquals(read([...text], state, first), ports);
  }
});

Deno.test("portsOfLines() leaves an unfinished line for later and says where it begins", () => {
  const bytes = encode(TCP);
  const last = TCP.lastIndexOf("\n", TCP.length - 2) + 1;
  const ports = new Uint32Array(2048);
  assertEquals(portsOfLines(bytes, 0, bytes.length - 1, TCP_LISTEN, true, ports), last);
  assertEquals(listed(ports), [22, 8080]);
  assertEquals(portsOfLines(bytes, last, bytes.length, TCP_LISTEN, true, ports), bytes.length);
  assertEquals(listed(ports), [22, 8080, 65535]);
});

Deno.test("portsOfLines() takes any bytes without harm", () => {
  const next = random(7);
  const bytes = encode(TCP6 + TCP + UDP);
  for (let i = 0; i < 3000; i++) {
    const hit = next.below(bytes.length), before = bytes[hit];
    bytes[hit] = next.below(256);
    const from = next.below(bytes.length), end = from + next.below(bytes.length - from + 1);
    const ports = new Uint32Array(2048);
    const rest = portsOfLines(bytes, from, end, UDP_UNCONNECTED, false, ports);
    assert(rest >= from && rest <= end);
    if (next.below(2) === 0) bytes[hit] = before;
  }
});

/** A bound socket; TCP listens. @returns its descriptor */
function bound(family: number, type: number, port: number, loopback = false): number {
  const fd = check(libc.socket(family, type, 0), "socket");
  const address = new Uint8Array(family === AF_INET ? 16 : 28);
  new Uint16Array(address.buffer, 0, 1)[0] = family;
  new DataView(address.buffer).setUint16(2, port);
  if (loopback) address.set([127, 0, 0, 1], 4);
  check(libc.bind(fd, address, address.length), "bind", `${port}`);
  if (type === SOCK_STREAM) check(libc.listen(fd, 8), "listen");
  return fd;
}

/** Connects a new socket to a port of 127.0.0.1. */
function connected(type: number, port: number): number {
  const fd = check(libc.socket(AF_INET, type, 0), "socket");
  const address = new Uint8Array([0, 0, port >> 8, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
  check(libc.connect(fd, address, address.length), "connect");
  return fd;
}

function scan(ports: BoundPorts): { tcp: number[]; udp: number[] } {
  const tcp = new Uint32Array(2048), udp = new Uint32Array(2048);
  ports.scanTcp(tcp);
  ports.scanUdp(udp);
  return { tcp: listed(tcp), udp: listed(udp) };
}

/** Both ways to find out: asking the kernel, and its files. */
for (const way of ["sock_diag", "/proc"]) {
  const open = () =>
    new BoundPorts(
      "/proc/thread-self/net",
      way === "/proc" ? -1 : newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG),
    );

  Deno.test(`BoundPorts sees what is bound in its namespace only (${way})`, ROOT, async () => {
    await using namespace = await TestNamespace.create("link set lo up");
    const fds: number[] = [];
    const ports = namespace.enter(() => {
      fds.push(bound(AF_INET, SOCK_STREAM, 22), bound(AF_INET6, SOCK_STREAM, 80));
      fds.push(bound(AF_INET, SOCK_STREAM, 8080, true), bound(AF_INET, SOCK_DGRAM, 53, true));
      fds.push(bound(AF_INET6, SOCK_DGRAM, 123), bound(AF_INET, SOCK_STREAM, 65535));
      fds.push(connected(SOCK_STREAM, 22), connected(SOCK_DGRAM, 53));
      return open();
    });
    try { // out of the namespace again: it is still seen
      assertEquals(scan(ports), { tcp: [22, 80, 8080, 65535], udp: [53, 123] });
      libc.close(fds.shift()!);
      namespace.enter(() => fds.push(bound(AF_INET, SOCK_STREAM, 25)));
      assertEquals(scan(ports), { tcp: [25, 80, 8080, 65535], udp: [53, 123] });
      for (const fd of fds.splice(0)) libc.close(fd);
      assertEquals(scan(ports), { tcp: [], udp: [] });
    } finally {
      for (const fd of fds) libc.close(fd);
      ports.close();
    }
  });

  Deno.test(`BoundPorts finds every one of many ports (${way})`, ROOT, async () => {
    await using namespace = await TestNamespace.create("link set lo up");
    const fds: number[] = [];
    const numbers = Array.from({ length: 1500 }, (_, i) => 1000 + 7 * i);
    const ports = namespace.enter(() => {
      for (const port of numbers) {
        fds.push(bound(port % 2 ? AF_INET : AF_INET6, SOCK_STREAM, port));
        fds.push(bound(port % 3 ? AF_INET : AF_INET6, SOCK_DGRAM, port));
      }
      return open();
    });
    try {
      assertEquals(scan(ports), { tcp: numbers, udp: numbers });
    } finally {
      for (const fd of fds) libc.close(fd);
      ports.close();
    }
  });
}

Deno.test("BoundPorts reads the files when the kernel does not answer", () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const fds = new Int32Array(2);
  check(libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), "socketpair");
  const ports = new BoundPorts("/proc/self/net", fds[0]); // no netlink socket
  for (let i = 0; i < 2; i++) assert(scan(ports).tcp.includes(listener.addr.port));
  ports.close();
  libc.close(fds[1]);
  listener.close();
});

Deno.test("BoundPorts adds to a set without clearing it", () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const ports = new BoundPorts("/proc/self/net");
  const set = new Uint32Array(2048).fill(0x80000000);
  ports.scanTcp(set);
  const { port } = listener.addr;
  assert(set[port >> 5] & 1 << (port & 31));
  assert(set.every((word) => word >>> 31 === 1));
  ports.close();
  listener.close();
});

Deno.test("BoundPorts does without the files of IPv6, and not without those of IPv4", () => {
  const folder = Deno.makeTempDirSync({ prefix: "tubetti-ports-" });
  try {
    assertEquals(assertThrows(() => new BoundPorts(folder), SysError).code, "ENOENT");
    Deno.writeTextFileSync(`${folder}/tcp`, TCP);
    Deno.writeTextFileSync(`${folder}/udp`, UDP);
    const ports = new BoundPorts(folder);
    assertEquals(scan(ports), { tcp: [22, 8080, 65535], udp: [53, 68] });
    ports.close();
    assertThrows(() => ports.scanTcp(new Uint32Array(2048)), SysError, "EBADF");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("BoundPorts survives files that are none of the kernel's", () => {
  const folder = Deno.makeTempDirSync({ prefix: "tubetti-ports-" });
  try {
    Deno.writeTextFileSync(`${folder}/tcp`, "x".repeat(300_000) + "\n" + TCP);
    Deno.writeTextFileSync(`${folder}/udp`, ":".repeat(100_000));
    const ports = new BoundPorts(folder);
    assertEquals(scan(ports).udp, []);
    ports.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
