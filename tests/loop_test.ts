// SPDX-License-Identifier: GPL-2.0-or-later
/** What the loop lets through, learns and waits for; the packets go to the host's loopback. */
import { assert, assertEquals } from "@std/assert";
import { EventType, type Features } from "../lib/context.ts";
import { FlowType } from "../lib/flow/types.ts";
import { EPOLL } from "../lib/sys/epoll.ts";
import { libc } from "../lib/sys/libc.ts";
import { AF_UNIX, SOCK_STREAM } from "../lib/sys/socket.ts";
import { formatAddress, isV4, LOOPBACK4 } from "../lib/wire/address.ts";
import { formatMac } from "../lib/wire/ethernet.ts";
import { address, GUEST_MAC, mac, OUR_MAC } from "./helpers/fake_context.ts";
import { descriptors, LoopDriver } from "./helpers/drive_loop.ts";
import { must } from "./helpers/run.ts";
import { arpRequest, echo, ENDS } from "./loop_frames.ts";
import { HostSocket, udpFrame } from "./udp/guest.ts";
import { ACK, buildSegment, readSegment, SYN } from "./tcp/segment.ts";

const GUEST4 = "192.0.2.2", GATEWAY4 = "192.0.2.1";
const GUEST6 = "2001:db8::2", GATEWAY6 = "2001:db8::1";
const PORT = 4000, NOBODY = 9; // the discard service: nobody listens

/** Runs `body` with a loop, and checks that all descriptors are closed once its flows have ended. */
function withDriver(
  options: ConstructorParameters<typeof LoopDriver>[0],
  body: (driver: LoopDriver) => void,
): void {
  const before = descriptors();
  const driver = new LoopDriver(options);
  try {
    body(driver);
  } finally {
    driver.close();
  }
  assertEquals(descriptors(), before);
}

function bytesOf(text: string): number[] {
  const words = address(text), all = new DataView(new ArrayBuffer(16));
  words.forEach((word, k) => all.setInt32(4 * k, word));
  return [...new Uint8Array(all.buffer)].slice(isV4(words) ? 12 : 0);
}

/** One frame of each protocol that begins a flow, by the type of that flow. */
function openers(source: string, dest: string, port: number): [number, Uint8Array][] {
  const v6 = source.includes(":");
  const tcp = { source: bytesOf(source), dest: bytesOf(dest), sport: PORT, dport: port, v6 };
  return [
    [FlowType.TCP, buildSegment({ ...tcp, seq: 1, flags: SYN })],
    [FlowType.UDP, udpFrame(ENDS, source, PORT, dest, port, new Uint8Array(4))],
    [v6 ? FlowType.PING6 : FlowType.PING4, echo(source, dest)],
  ];
}

const FAMILIES = [[GUEST4, GATEWAY4], [GUEST6, GATEWAY6]] as const;

Deno.test("the loop begins a flow for a packet of each protocol and family", () => {
  for (const [guest, gateway] of FAMILIES) {
    for (const [type, frame] of openers(guest, gateway, NOBODY)) {
      withDriver({}, (driver) => {
        driver.serve(frame);
        assertEquals(driver.takeStarted(), [type], `${guest}, type ${type}`);
      });
    }
  }
});

Deno.test("the loop drops frames with a loopback, group or missing address at either end", () => {
  const wrong: Record<string, string[]> = {
    [GUEST4]: ["127.0.0.1", "127.255.255.255", "0.0.0.0", "224.0.0.5", "255.255.255.255"],
    [GUEST6]: ["::1", "::", "ff02::5", "ff0e::1"],
  };
  withDriver({}, (driver) => {
    for (const [guest, gateway] of FAMILIES) {
      for (const bad of wrong[guest]!) {
        const frames = [...openers(guest, bad, NOBODY), ...openers(bad, gateway, NOBODY)];
        const sent = driver.serve(...frames.map(([, frame]) => frame));
        assertEquals([driver.takeStarted(), sent.length], [[], 0], bad);
      }
    }
  });
});

Deno.test("the loop drops frames whose source is a group or its own MAC address", () => {
  withDriver({}, (driver) => {
    for (const source of ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", OUR_MAC]) {
      const frames = [arpRequest(source), ...openers(GUEST4, GATEWAY4, NOBODY).map((o) => o[1])];
      for (const frame of frames) frame.set(mac(source), 6);
      assertEquals(driver.serve(...frames), [], source);
      assertEquals(driver.takeStarted(), [], source);
      assertEquals(formatMac(driver.ctx.guestMac), GUEST_MAC);
    }
  });
});

Deno.test("the loop learns the guest's MAC address from any frame, and answers there", () => {
  withDriver({}, (driver) => {
    const other = "02:00:5e:10:00:02";
    const [answer] = driver.serve(arpRequest(other));
    assertEquals(formatMac(driver.ctx.guestMac), other);
    assertEquals(formatMac(answer!.frame.subarray(0, 6)), other);
  });
});

Deno.test("the loop learns the guest's addresses, link-local and other, of one host only", () => {
  const cases: [source: string, addrSeen: string, linkLocalSeen: string][] = [
    ["2001:db8::77", "2001:db8::77", "::"],
    ["fe80::77", "2001:db8::77", "fe80::77"],
    ["::", "2001:db8::77", "fe80::77"],
    ["ff02::1", "2001:db8::77", "fe80::77"],
    ["::1", "2001:db8::77", "fe80::77"],
    ["fe80::78", "2001:db8::77", "fe80::78"],
    ["2001:db8::2", "2001:db8::2", "fe80::78"],
  ];
  withDriver({ features: { udp: false } }, (driver) => {
    const ip6 = driver.ctx.ip6!;
    for (const [source, addrSeen, linkLocalSeen] of cases) {
      driver.serve(udpFrame(ENDS, source, PORT, GATEWAY6, NOBODY, new Uint8Array(1)));
      const seen = [formatAddress(ip6.addrSeen), formatAddress(ip6.linkLocalSeen)];
      assertEquals(seen, [addrSeen, linkLocalSeen], source);
    }
    const ip4 = driver.ctx.ip4!;
    for (const source of ["198.51.100.9", "0.0.0.0", "224.0.0.1", "255.255.255.255", "127.1.1.1"]) {
      driver.serve(udpFrame(ENDS, source, PORT, GATEWAY4, NOBODY, new Uint8Array(1)));
      assertEquals(formatAddress(ip4.addrSeen), "198.51.100.9", source);
    }
  });
});

Deno.test("the loop serves no family that is disabled, and learns nothing from it", () => {
  FAMILIES.forEach(([guest, gateway], k) => {
    withDriver(k === 0 ? { ip4: null } : { ip6: null }, (driver) => {
      const frames = openers(guest, gateway, NOBODY).map(([, frame]) => frame);
      if (k === 0) frames.push(arpRequest(GUEST_MAC));
      assertEquals(driver.serve(...frames), []);
      assertEquals(driver.takeStarted(), []);
      const [other, router] = FAMILIES[1 - k]!;
      driver.serve(openers(other, router, NOBODY)[1]![1]);
      assertEquals(driver.takeStarted(), [FlowType.UDP]);
    });
  });
});

Deno.test("--no-tcp, --no-udp and --no-icmp leave out one protocol each", () => {
  const without: [keyof Features, number[]][] = [
    ["tcp", [FlowType.TCP]],
    ["udp", [FlowType.UDP]],
    ["icmp", [FlowType.PING4, FlowType.PING6]],
  ];
  for (const [feature, types] of without) {
    for (const [guest, gateway] of FAMILIES) {
      for (const [type, frame] of openers(guest, gateway, NOBODY)) {
        withDriver({ features: { [feature]: false } }, (driver) => {
          const sent = driver.serve(frame);
          const served = !types.includes(type);
          assertEquals(driver.takeStarted(), served ? [type] : [], `no ${feature}`);
          assert(served || sent.length === 0);
        });
      }
    }
  }
});

Deno.test("the loop waits for ever while the table is empty, and a second at most with a flow", () => {
  withDriver({}, (driver) => {
    const waits = () => {
      driver.settle();
      return driver.epoll.timeoutMs;
    };
    assertEquals(waits(), -1);
    driver.serve(arpRequest(GUEST_MAC));
    assertEquals(waits(), -1, "after a service's answer");
    driver.serve(udpFrame(ENDS, GUEST4, PORT, GATEWAY4, NOBODY, new Uint8Array(1)));
    assertEquals(driver.takeStarted(), [FlowType.UDP]);
    const timeout = waits();
    assert(timeout > 0 && timeout <= 1000, `${timeout} ms`);
    driver.expire();
    assertEquals(waits(), -1, "after the flow's end");
  });
});

Deno.test("an idle TCP connection has the loop look at it once a second", () => {
  const server = new HostSocket(LOOPBACK4, SOCK_STREAM);
  libc.listen(server.fd, 1);
  withDriver({}, (driver) => {
    const segment = { sport: PORT, dport: server.port };
    const sent = driver.serve(buildSegment({ ...segment, seq: 100, flags: SYN }));
    const answers = [...sent, ...driver.settle()].map((one) => readSegment(one));
    assertEquals(answers.map(({ flags }) => flags), [SYN | ACK]);
    const ack = answers[0]!.seq + 1 >>> 0;
    assertEquals(driver.serve(buildSegment({ ...segment, seq: 101, ack, flags: ACK })), []);
    driver.ahead += 100; // the answered SYN-ACK is no longer timed
    driver.settle();
    const { timeoutMs } = driver.epoll;
    assert(timeoutMs > 500 && timeoutMs <= 1000, `${timeoutMs} ms`);
  });
  server.close();
});

Deno.test("an event that names an entry without a flow is harmless", () => {
  withDriver({}, (driver) => {
    const { epoll, ctx } = driver, fds = new Int32Array(2);
    libc.socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    for (const type of [EventType.TCP, EventType.UDP, EventType.PING]) {
      for (const index of [0, ctx.table.capacity - 1]) {
        epoll.add(fds[0], EPOLL.OUT, type, index);
        assertEquals(driver.serve(), [], `type ${type}`);
        epoll.remove(fds[0]);
      }
    }
    libc.close(fds[0]);
    libc.close(fds[1]);
  });
});

/** Nothing is collected unless asked for, so that garbage can be measured, too. */
const NO_COLLECTION = "--expose-gc,--min-semi-space-size=128,--max-semi-space-size=128";
const MIB = 1 << 20;

Deno.test("a million frames of all kinds through the loop leave the heap as it was", async () => {
  const file = new URL("loop_heap_probe.ts", import.meta.url).pathname;
  const flags = ["--quiet", "--no-prompt", "--no-check", `--v8-flags=${NO_COLLECTION}`];
  const output = await must([Deno.execPath(), "run", "-A", ...flags, file], { timeoutMs: 120_000 });
  const { grown, kept, sent } = JSON.parse(output);
  assert(sent > 400_000, `${sent} answers`);
  assert(kept < MIB, `${kept} bytes kept`);
  assert(grown < MIB, `${grown} bytes of garbage`);
});
