// SPDX-License-Identifier: GPL-2.0-or-later
/** What is opened when, with listeners that only count. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import { parsePortSpec } from "../../lib/forward/ports.ts";
import { AutoPorts, emptyPorts, has, include } from "../../lib/host/port_set.ts";
import { E } from "../../lib/sys/errno.ts";
import { makeForwarder as make } from "./forward_fakes.ts";

Deno.test("open() opens what the rules name, on both sides", () => {
  const { forwarder, tcp, udp } = make({ t: "80:8080", T: "90-91:190-191" });
  forwarder.open(10);
  assertEquals(tcp.all, ["2 80=>8080", "3 %lo/90=>190", "3 %lo/91=>191"]);
  assertEquals([udp.all, forwarder.scans], [[], false]);
});

Deno.test("open() passes addresses, interfaces, targets and --freebind on", () => {
  const { forwarder, udp } = make({ u: "192.0.2.1%eth0/53:192.0.2.9/153" }, { freebind: true });
  forwarder.open(10);
  assertEquals(udp.all, ["2 192.0.2.1/%eth0/53=>192.0.2.9/153 freebind"]);
});

Deno.test("open() names the port that cannot be had, the reason, and what helps", () => {
  const cases: [number, number, string][] = [
    [E.EADDRINUSE, 81, "EADDRINUSE (the port is in use)"],
    [
      E.EACCES,
      81,
      "EACCES (ports below 1024 need CAP_NET_BIND_SERVICE or " +
      "net.ipv4.ip_unprivileged_port_start)",
    ],
    [E.EMFILE, 81, "EMFILE (more ports than descriptors: see ulimit -n)"],
    [E.EADDRNOTAVAIL, 81, "EADDRNOTAVAIL (not an address of this host: see --freebind)"],
    [E.ENODEV, 81, "ENODEV (no such interface)"],
  ];
  for (const [reason, port, text] of cases) {
    const { forwarder, tcp } = make({ t: "80-82" });
    tcp.refuse.set(port, reason);
    const error = assertThrows(() => forwarder.open(10), ConfigError);
    assertEquals(error.message, `-t 80-82: cannot listen on TCP port ${port}: ${text}`);
  }
});

Deno.test("open() skips what a weak rule cannot have, and fails when that is all", () => {
  const { forwarder, tcp } = make({ t: "all" });
  for (let port = 1; port < 1024; port++) tcp.refuse.set(port, E.EACCES);
  forwarder.open(10);
  assertEquals(tcp.all[0], "2 1024=>1024");
  const none = make({ u: "all" });
  for (let port = 1; port < 65_536; port++) none.udp.refuse.set(port, E.EADDRINUSE);
  const error = assertThrows(() => none.forwarder.open(10), ConfigError);
  assert(/^-u: none of \d+ UDP ports can be forwarded: EADDRINUSE$/.test(error.message));
});

Deno.test("open() leaves descriptors for connections when a weak rule wants them all", () => {
  const { forwarder, tcp, udp } = make({ t: "all", u: "all" });
  forwarder.open(100);
  assertEquals([tcp.open.size, udp.open.size], [9438, 9438]); // (20000 - 1024 - 100) / 2
  const few = make({ t: "all" }, { descriptors: 800 });
  few.forwarder.open(100);
  assertEquals(few.tcp.open.size, 600); // 800 - 800 / 8 - 100
});

Deno.test("open() lets UDP follow TCP, as far as it can", () => {
  const { forwarder, udp } = make({ t: "80,90", followers: "80,90" });
  udp.refuse.set(80, E.EADDRINUSE);
  forwarder.open(10);
  assertEquals(udp.all, ["2 90=>90"]);
});

Deno.test("scan() opens and closes ports with the other side's", () => {
  const { forwarder, tcp, udp, guest, host } = make({ t: "auto", u: "auto", T: "auto", U: "auto" });
  host.tcp = [22];
  forwarder.open(10);
  assertEquals([tcp.all, udp.all], [["3 %lo/22=>22"], ["3 %lo/22=>22"]]);
  assertEquals(forwarder.scans, true);
  guest.tcp = [22, 8080]; // 22 is our own listener there
  guest.udp = [22, 53];
  forwarder.scan();
  assertEquals(tcp.all, ["3 %lo/22=>22", "2 8080=>8080"]);
  assertEquals(udp.all, ["3 %lo/22=>22", "2 53=>53", "2 8080=>8080"]);
  host.tcp = [22, 8080]; // 8080 is our own
  host.udp = [53, 8080];
  forwarder.scan();
  forwarder.scan();
  assertEquals(tcp.open.size, 2);
  host.tcp = host.udp = [];
  guest.tcp = guest.udp = [];
  forwarder.scan();
  assertEquals([tcp.all, udp.all], [[], []]);
});

Deno.test("scan() lets UDP follow what TCP forwards, and nothing else", () => {
  const ranges = make({ t: "auto,8000-8999:9000-9999", u: "auto" });
  ranges.guest.tcp = [22, 9080];
  ranges.forwarder.open(10);
  assertEquals(ranges.tcp.all, ["2 8080=>9080"]);
  assertEquals(ranges.udp.all, ["2 8080=>8080"]);
  const none = make({ u: "auto" });
  none.guest.tcp = [22, 9080];
  none.forwarder.open(10);
  assertEquals(none.udp.all, []);
});

Deno.test("scan() keeps the same port of two addresses apart", () => {
  const rules = [...parsePortSpec("127.0.0.1/auto,80"), ...parsePortSpec("192.0.2.2/auto,80")];
  const { forwarder, tcp, guest, host } = make({ T: "auto" }, {
    rules: { tcp: rules, udp: [], tcpNs: parsePortSpec("auto"), udpNs: [] },
  });
  guest.tcp = [80];
  forwarder.open(10);
  assertEquals(tcp.all, ["2 127.0.0.1/80=>80", "2 192.0.2.2/80=>80"]);
  host.tcp = [80];
  forwarder.scan();
  assertEquals(tcp.open.size, 2); // both are our own there
  guest.tcp = [];
  forwarder.scan();
  assertEquals(tcp.all, []);
});

Deno.test("scan() is put off when it takes long", () => {
  let now = 0;
  const { forwarder, tcp, guest } = make({ t: "auto" }, { clock: () => now += 10 });
  forwarder.open(10);
  guest.tcp = [80];
  forwarder.scan();
  assertEquals(tcp.open.size, 0);
  now += 1000;
  forwarder.scan();
  assertEquals(tcp.open.size, 1);
});

Deno.test("open() refuses addresses and targets of a family that is off", () => {
  for (
    const [spec, options, name] of [
      ["[::1]/80", { ipv6: false }, "IPv6"],
      ["80:192.0.2.9/80", { ipv4: false }, "IPv4"],
    ] as const
  ) {
    const { forwarder } = make({ t: spec }, options);
    const error = assertThrows(() => forwarder.open(10), ConfigError);
    assert(error.message.endsWith(`: ${name} is disabled`), error.message);
  }
});

Deno.test("open() shares descriptors between weak rules, followers and auto", () => {
  const { forwarder, tcp, udp } = make({ t: "all", followers: "all", u: "auto" });
  forwarder.open(976);
  assertEquals([tcp.open.size, udp.open.size], [7875, 7875]); // (20000 - 1024 - 976) * 7 / 8 / 2
});

Deno.test("scan() keeps to the ranges of a rule, and maps them", () => {
  const { forwarder, tcp, guest } = make({ t: "auto,2000-2999:12000-12999" });
  guest.tcp = [2000, 12_000, 12_999, 13_000];
  forwarder.open(10);
  assertEquals(tcp.all.sort(), ["2 2000=>12000", "2 2999=>12999"]);
});

Deno.test("scan() tries again what could not be had, and leaves static ports alone", () => {
  const { forwarder, tcp, guest } = make({ t: "auto,2000-2999" });
  guest.tcp = [2000, 2001];
  tcp.refuse.set(2000, E.EADDRINUSE);
  forwarder.open(10);
  assertEquals(tcp.all, ["2 2001=>2001"]);
  tcp.refuse.clear();
  forwarder.scan();
  assertEquals(tcp.all, ["2 2001=>2001", "2 2000=>2000"]);
  tcp.room = 2;
  guest.tcp = [2000, 2001, 2002];
  forwarder.scan();
  assertEquals(tcp.open.size, 2);
});

Deno.test("AutoPorts compares whole words and single ports alike", () => {
  const [rule] = parsePortSpec("auto,33-20000:1033-21000");
  const auto = new AutoPorts(rule), bound = emptyPorts(), changes: string[] = [];
  for (const port of [33, 1032, 1033, 1100, 1119, 21_000, 21_001]) include(bound, port);
  auto.compare(bound, null, (port, wanted) => {
    changes.push(`${port} ${wanted}`);
    auto.opened(port, port);
  });
  assertEquals(changes.sort(), ["100 true", "119 true", "20000 true", "33 true"]);
  bound.fill(0);
  const more = emptyPorts();
  include(more, 100);
  const closed: number[] = [];
  auto.compare(bound, more, (port) => closed.push(port));
  assertEquals(closed.sort((a, b) => a - b), [33, 119, 20_000]);
  assert(has(more, 100));
});
