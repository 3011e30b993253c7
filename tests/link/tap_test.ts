// SPDX-License-Identifier: GPL-2.0-or-later
/** A link over a real tap: what the guest's kernel sends, and what it takes. */
import { assert, assertEquals } from "@std/assert";
import { GSO } from "../../lib/link/link.ts";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import {
  connectSocket,
  setOption,
  SOCK_DGRAM,
  SOCK_STREAM,
  socketAddress,
} from "../../lib/sys/socket.ts";
import { pseudoSum } from "../../lib/wire/checksum.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { address, GUEST_MAC, mac, OUR_MAC } from "../helpers/fake_context.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { requirements } from "../helpers/require.ts";
import { until } from "../helpers/run.ts";
import { ACK, buildSegment, GATEWAY4, GATEWAY6, GUEST4, GUEST6, SYN } from "../tcp/segment.ts";
import { udpFrame } from "../udp/guest.ts";
import { RealTap, type Received, TO_GUEST } from "./real_tap.ts";

const NEEDS = requirements({ packages: ["iproute2"] });
const UDP_SEGMENT = 103, UDP = 17; // linux/udp.h
const PORT = 4000;
const MTU_FRAME = 1514;

/** Guest, gateway, and where the transport header begins. */
const FAMILIES = [
  { ip: "IPv4", guest: "192.0.2.2", gateway: "192.0.2.1", l4: 34, v6: false },
  { ip: "IPv6", guest: "2001:db8::2", gateway: "2001:db8::1", l4: 54, v6: true },
] as const;

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const packet = new Packet();

/** Whether a frame carries that protocol to that port. */
function goesTo(port: number, proto: number): (frame: Received) => boolean {
  return ({ bytes }) =>
    parseIp(viewOf(bytes), 0, bytes.length, packet) && packet.proto === proto &&
    viewOf(bytes).getUint16(packet.l4 + 2) === port;
}

/** The checksum of a frame is left to us: its field holds the sum of the pseudo-header. */
function assertLeftToUs(frame: Received, l4: number, offset: number): void {
  const { bytes, csumStart, csumOffset } = frame;
  assertEquals([csumStart, csumOffset], [l4, offset]);
  assert(parseIp(viewOf(bytes), 0, bytes.length, packet));
  const { addresses, proto, end } = packet;
  const expected = pseudoSum(addresses, 0, addresses, 4, proto, end - l4);
  assertEquals(viewOf(bytes).getUint16(l4 + offset), expected);
}

const pattern = (n: number) => Uint8Array.from({ length: n }, (_, i) => i * 7 + (i >> 8));

Deno.test({
  name: "receive() returns ARP and neighbour requests of the guest's kernel, and 0 when none wait",
  ...NEEDS,
  async fn() {
    await using tap = await RealTap.create("");
    for (const { guest, gateway, v6 } of FAMILIES) {
      const fd = tap.socket(guest, SOCK_DGRAM);
      connectSocket(fd, address(gateway), 0, PORT);
      libc.send(fd, new Uint8Array(4), 4, 0);
      const { bytes, gsoSize, csumStart } = await tap.frame(({ bytes }) =>
        v6 ? bytes[12] === 0x86 && bytes[54] === 135 : bytes[12] === 8 && bytes[13] === 6
      );
      assertEquals(bytes.subarray(6, 12), mac(GUEST_MAC));
      assertEquals([gsoSize, csumStart], [0, 0]);
      const target = v6 ? bytes.subarray(62, 78) : bytes.subarray(38, 42);
      assertEquals([...target], [...(v6 ? GATEWAY6 : GATEWAY4)]);
    }
    await until(() => tap.link.receive(16) === 0);
    assertEquals(tap.link.receive(16), 0);
  },
});

for (const { ip, guest, gateway, l4, v6 } of FAMILIES) {
  Deno.test({
    name: `receive(), ${ip}: the checksum of a datagram is left to us`,
    ...NEEDS,
    async fn() {
      await using tap = await RealTap.create();
      const fd = tap.socket(guest, SOCK_DGRAM);
      connectSocket(fd, address(gateway), 0, PORT);
      libc.send(fd, pattern(100), 100, 0);
      const frame = await tap.frame(goesTo(PORT, UDP));
      assertEquals([frame.bytes.length, frame.gsoSize], [l4 + 8 + 100, 0]);
      assertEquals(frame.bytes.subarray(l4 + 8), pattern(100));
      assertLeftToUs(frame, l4, 6);
    },
  });

  Deno.test({
    name: `receive(), ${ip}: datagrams sent with UDP_SEGMENT are one frame`,
    ...NEEDS,
    async fn() {
      await using tap = await RealTap.create();
      if (!tap.uso) return; // Linux 6.2
      const fd = tap.socket(guest, SOCK_DGRAM);
      connectSocket(fd, address(gateway), 0, PORT);
      assertEquals(setOption(fd, UDP, UDP_SEGMENT, 1000), 0);
      assertEquals(libc.send(fd, pattern(5500), 5500, 0), 5500);
      const frame = await tap.frame(goesTo(PORT, UDP));
      assertEquals([frame.bytes.length, frame.gsoSize], [l4 + 8 + 5500, 1000]);
      assertEquals(frame.bytes.subarray(l4 + 8), pattern(5500));
      assertLeftToUs(frame, l4, 6);
    },
  });

  Deno.test({
    name: `receive(), ${ip}: a stream comes in frames of several segments`,
    ...NEEDS,
    async fn() {
      await using tap = await RealTap.create();
      const fd = tap.socket(guest, SOCK_STREAM);
      const sport = socketAddress(fd, new Int32Array(4), 0);
      connectSocket(fd, address(gateway), 0, PORT);
      const syn = await tap.frame(goesTo(PORT, 6));
      assertLeftToUs(syn, l4, 16);
      const ack = viewOf(syn.bytes).getUint32(l4 + 4) + 1 >>> 0;
      const answer = buildSegment({
        source: v6 ? GATEWAY6 : GATEWAY4,
        dest: v6 ? GUEST6 : GUEST4,
        sport: PORT,
        dport: sport,
        seq: 1,
        ack,
        flags: SYN | ACK,
        options: [2, 4, 0x03, 0xe8], // MSS 1000
        v6,
      });
      answer.set([...mac(GUEST_MAC), ...mac(OUR_MAC)]);
      assertEquals(tap.send(answer), 0);
      await tap.frame(({ bytes }) =>
        goesTo(PORT, 6)({ bytes } as Received) && bytes[l4 + 13] === ACK
      );
      assertEquals(libc.send(fd, pattern(8000), 8000, 0), 8000);
      let bytes = 0, largest = 0;
      while (bytes < 8000) {
        const frame = await tap.frame(goesTo(PORT, 6)), payload = frame.bytes.length - l4 - 20;
        assertEquals(frame.bytes.subarray(l4 + 20), pattern(8000).subarray(bytes, bytes + payload));
        assertEquals(frame.gsoSize, payload > 1000 ? 1000 : 0);
        assertLeftToUs(frame, l4, 16);
        bytes += payload;
        largest = Math.max(largest, frame.bytes.length);
      }
      assert(largest > MTU_FRAME, `no frame over ${largest} bytes`);
    },
  });

  Deno.test({
    name: `send(), ${ip}: the guest's kernel completes the checksum, and cuts a super-frame`,
    ...NEEDS,
    async fn() {
      await using tap = await RealTap.create();
      const fd = tap.socket(guest, SOCK_DGRAM);
      const port = socketAddress(fd, new Int32Array(4), 0);
      const received: number[] = [], buffer = new Uint8Array(65536);
      const content: number[] = [];
      const collect = () => {
        for (let n = libc.recv(fd, buffer, 65536, 0); n >= 0; n = libc.recv(fd, buffer, 65536, 0)) {
          received.push(n);
          content.push(...buffer.subarray(0, n));
        }
      };
      const send = (payload: Uint8Array, whole: boolean, gsoSize: number) => {
        const frame = udpFrame(TO_GUEST, gateway, PORT, guest, port, payload);
        if (whole) return tap.send(frame);
        const sum = pseudoSum(address(gateway), 0, address(guest), 0, UDP, payload.length + 8);
        viewOf(frame).setUint16(l4 + 6, sum);
        return tap.send(frame, l4 + 8, l4, 6, gsoSize ? GSO.UDP_L4 : GSO.NONE, gsoSize);
      };
      assertEquals(send(pattern(301), true, 0), 0);
      assertEquals(send(pattern(1001), false, 0), 0);
      const sizes = [301, 1001];
      if (tap.uso) {
        assertEquals(send(pattern(2500), false, 1000), 0);
        sizes.push(1000, 1000, 500);
      }
      await until(() => {
        collect();
        return received.length >= sizes.length;
      }, 2000);
      assertEquals(received, sizes);
      const sent = [...pattern(301), ...pattern(1001), ...(tap.uso ? pattern(2500) : [])];
      assertEquals(content, sent);
    },
  });
}

Deno.test({
  name: "send() returns a negative errno while the interface is down",
  ...NEEDS,
  async fn() {
    await using tap = await RealTap.create();
    await tap.namespace.batch("link set tap0 down");
    const frame = udpFrame(TO_GUEST, "192.0.2.1", 1, "192.0.2.2", 2, new Uint8Array(1));
    assertEquals(tap.send(frame), -E.EIO);
  },
});

Deno.test({
  name: "receive() returns -1 when the device is deleted; close() releases it",
  ...NEEDS,
  async fn() {
    const before = descriptors();
    const tap = await RealTap.create();
    await tap.namespace.batch("link del tap0");
    assertEquals(tap.link.receive(16), -1);
    assert(tap.send(new Uint8Array(60)) < 0);
    await tap[Symbol.asyncDispose]();
    assertEquals(descriptors(), before);
  },
});
