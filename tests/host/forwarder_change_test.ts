// SPDX-License-Identifier: GPL-2.0-or-later
/** What a running instance opens and closes when it is told to, with listeners that only count. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import {
  DEFAULT_EPHEMERAL,
  parsePortSpec,
  type PortRule,
  PortSpecError,
} from "../../lib/forward/ports.ts";
import type { Forwarder, ForwardOption } from "../../lib/host/forwarder.ts";
import { E } from "../../lib/sys/errno.ts";
import { makeForwarder } from "./forward_fakes.ts";

const parse = (text: string): PortRule[] => parsePortSpec(text);
const texts = (forwarder: Forwarder, option: ForwardOption) =>
  forwarder.rules(option, DEFAULT_EPHEMERAL);

Deno.test("add() opens ports, and remove() closes them, on both sides", () => {
  const { forwarder, tcp, udp } = makeForwarder({ t: "80" });
  forwarder.open(10);
  forwarder.add("t", parse("8080:80,9000-9001"));
  forwarder.add("T", parse("5432"));
  forwarder.add("U", parse("53"));
  assertEquals(tcp.all, [
    "2 80=>80",
    "2 8080=>80",
    "2 9000=>9000",
    "2 9001=>9001",
    "3 %lo/5432=>5432",
  ]);
  assertEquals(udp.all, ["3 %lo/53=>53"]);
  assertEquals(texts(forwarder, "t"), ["80,8080:80,9000-9001"]);
  forwarder.remove("t", parse("8080:80,9000-9001"));
  forwarder.remove("t", parse("80"));
  forwarder.remove("T", parse("5432"));
  forwarder.remove("U", parse("53"));
  assertEquals([tcp.all, udp.all, texts(forwarder, "t")], [[], [], []]);
});

Deno.test("remove() takes parts of a rule, and what several rules have added", () => {
  const { forwarder, tcp } = makeForwarder({ t: "80-85:180-185" });
  forwarder.open(10);
  forwarder.remove("t", parse("82-83:182-183"));
  assertEquals(texts(forwarder, "t"), ["80-81:180-181,84-85:184-185"]);
  forwarder.add("t", parse("82:182"));
  forwarder.add("t", parse("83:183"));
  assertEquals(texts(forwarder, "t"), ["80-85:180-185"]);
  forwarder.remove("t", parse("81-84:181-184"));
  assertEquals(tcp.all, ["2 80=>180", "2 85=>185"]);
});

Deno.test("remove() refuses what is not forwarded by a rule of its own, and changes nothing then", () => {
  const { forwarder, tcp, guest } = makeForwarder({ t: "auto,2000-2999" });
  guest.tcp = [2022];
  forwarder.open(10);
  forwarder.add("t", parse("80"));
  forwarder.add("t", parse("192.0.2.1/90:91"));
  const before = tcp.all;
  for (
    const text of [
      "81",
      "80-81",
      "80:81",
      "2022",
      "90:91",
      "192.0.2.1/90",
      "127.0.0.1/80",
      "%lo/80",
    ]
  ) {
    const error = assertThrows(() => forwarder.remove("t", parse(text)), ConfigError);
    assert(error.message.startsWith(`-t ${text}: there is no such rule`), error.message);
  }
  assertThrows(
    () => forwarder.remove("u", parse("80")),
    ConfigError,
    "-u 80: there is no such rule",
  );
  assertEquals(tcp.all, before);
});

Deno.test("remove() says what there is for the ports of a rule that is not there", () => {
  const { forwarder } = makeForwarder({ t: "7000:80,9000-9005:81-86" });
  forwarder.open(10);
  const said = (text: string) =>
    assertThrows(() => forwarder.remove("t", parse(text)), ConfigError).message;
  assertEquals(said("7000"), "-t 7000: there is no such rule; in force: 7000:80");
  assertEquals(said("9002-9003"), "-t 9002-9003: there is no such rule; in force: 9000-9005:81-86");
  assertEquals(said("7001"), "-t 7001: there is no such rule");
  for (const port of [1, 2, 3, 4]) forwarder.add("t", parse(`${port}:${port + 100}`));
  assertEquals(said("1-4"), "-t 1-4: there is no such rule; in force: 1:101, 2:102, 3:103, ...");
});

Deno.test("add() refuses what overlaps another rule", () => {
  const { forwarder, tcp } = makeForwarder({ t: "80-85", u: "all" });
  forwarder.open(10);
  const words = '"85-90" overlaps "80-85" given before (port 85)';
  assertThrows(() => forwarder.add("t", parse("85-90")), PortSpecError, words);
  assertThrows(() => forwarder.add("t", parse("192.0.2.1/80")), PortSpecError, "overlaps");
  assertThrows(() => forwarder.add("u", parse("53")), PortSpecError, '"53" overlaps "all"');
  assertEquals(tcp.open.size, 6);
});

Deno.test("add() opens all ports or none, and says which one cannot be had", () => {
  const { forwarder, tcp } = makeForwarder({});
  forwarder.open(10);
  tcp.refuse.set(82, E.EADDRINUSE);
  const error = assertThrows(() => forwarder.add("t", parse("70,80-90")), ConfigError);
  const why = "EADDRINUSE (the port is in use)";
  assertEquals(error.message, `-t 80-90: cannot listen on TCP port 82: ${why}`);
  assertEquals(error.code, "EADDRINUSE");
  assertEquals([tcp.all, texts(forwarder, "t")], [[], []]);
  tcp.refuse.clear();
  forwarder.add("t", parse("70,80-90"));
  assertEquals(tcp.open.size, 12);
});

Deno.test("add() refuses a family that is off", () => {
  const { forwarder } = makeForwarder({}, { ipv6: false });
  forwarder.open(10);
  assertThrows(
    () => forwarder.add("t", parse("[2001:db8::1]/80")),
    ConfigError,
    "-t [2001:db8::1]/80: IPv6 is disabled",
  );
});

Deno.test("add() leaves descriptors for connections", () => {
  const { forwarder, tcp } = makeForwarder({}, { descriptors: 4000 }); // 500 are kept
  forwarder.open(100);
  forwarder.add("t", parse("1000-4399"));
  forwarder.add("t", parse("5000-5249"));
  const error = assertThrows(() => forwarder.add("T", parse("80")), ConfigError);
  const words = "1 TCP ports more would leave too few of 4000 descriptors (ulimit -n)";
  assertEquals(error.message, `-T: ${words}`);
  forwarder.remove("t", parse("5000"));
  forwarder.add("T", parse("80"));
  assertEquals(tcp.open.size, 3650);
});

Deno.test("auto rules leave a port to one that is named, and take it back", () => {
  const { forwarder, tcp, udp, guest } = makeForwarder({ t: "auto", u: "auto" });
  guest.tcp = [80, 8080];
  forwarder.open(10);
  assertEquals(tcp.all, ["2 80=>80", "2 8080=>8080"]);
  forwarder.add("t", parse("8080:80"));
  assertEquals(tcp.all, ["2 80=>80", "2 8080=>80"]);
  forwarder.scan();
  forwarder.scan();
  assertEquals(tcp.all, ["2 80=>80", "2 8080=>80"]);
  assertEquals(udp.all, ["2 80=>80", "2 8080=>8080"]); // they follow TCP as before
  assertEquals(texts(forwarder, "t"), ["auto", "8080:80"]);
  forwarder.remove("t", parse("8080:80"));
  assertEquals(tcp.all, ["2 80=>80"]);
  forwarder.scan();
  assertEquals(tcp.all, ["2 80=>80", "2 8080=>8080"]);
});

Deno.test("auto rules leave a port only where the named one has it", () => {
  const rules = [...parse("192.0.2.1/auto,80"), ...parse("192.0.2.2/auto,80")];
  const { forwarder, tcp, guest } = makeForwarder({}, {
    rules: { tcp: rules, udp: [], tcpNs: [], udpNs: [] },
  });
  guest.tcp = [80];
  forwarder.open(10);
  forwarder.add("t", parse("192.0.2.1/80:81"));
  forwarder.scan();
  assertEquals(tcp.all, ["2 192.0.2.2/80=>80", "2 192.0.2.1/80=>81"]);
});

Deno.test("auto rules get a port back when the named one could not be had", () => {
  const { forwarder, tcp, guest } = makeForwarder({ t: "auto" });
  guest.tcp = [80];
  forwarder.open(10);
  tcp.refuse.set(81, E.EADDRINUSE);
  assertThrows(() => forwarder.add("t", parse("80-81")), ConfigError, "TCP port 81");
  forwarder.scan();
  assertEquals(tcp.all, ["2 80=>80"]);
});

Deno.test("UDP ports that follow TCP give way to named ones, and are told of", () => {
  const { forwarder, udp } = makeForwarder({ t: "80-81:180-181", followers: "80-81" });
  forwarder.open(10);
  assertEquals(texts(forwarder, "u"), ["80-81"]);
  udp.refuse.set(90, E.EADDRINUSE);
  assertThrows(() => forwarder.add("u", parse("80:53,90")), ConfigError, "UDP port 90");
  assertEquals(udp.all.toSorted(), ["2 80=>80", "2 81=>81"]);
  forwarder.add("u", parse("80:53"));
  assertEquals(udp.all.toSorted(), ["2 80=>53", "2 81=>81"]);
  assertEquals(texts(forwarder, "u"), ["80:53,81"]);
  forwarder.remove("u", parse("80:53"));
  assertEquals(udp.all, ["2 81=>81"]);
});

Deno.test("add() and remove() of very many rules take no longer than their ports", () => {
  const odd = Array.from({ length: 11_000 }, (_, k) => 1025 + 2 * k), text = odd.join();
  const { forwarder, tcp, udp, guest } = makeForwarder({ t: "9", u: "auto", followers: text }, {
    descriptors: 100_000,
  });
  guest.udp = odd;
  forwarder.open(10);
  const began = performance.now();
  for (const option of ["t", "u"] as const) forwarder.add(option, parse(text));
  assertEquals([tcp.open.size, udp.open.size], [1 + odd.length, odd.length]);
  assertThrows(() => forwarder.add("t", parse(text)), PortSpecError, "overlaps");
  tcp.refuse.set(24_000, E.EADDRINUSE);
  const more = `192.0.2.1/${odd.map((port) => port - 1).join()},24000`;
  assertThrows(() => forwarder.add("t", parse(more)), ConfigError, "24000");
  assertEquals(texts(forwarder, "t"), [`9,${text}`]);
  for (const option of ["t", "u"] as const) forwarder.remove(option, parse(text));
  const ms = performance.now() - began;
  assertEquals([tcp.open.size, udp.open.size], [1, 0]);
  assert(ms < 5000, `${ms} ms`); // rule by rule it was half a minute
});

Deno.test("rules() gives texts that mean the same", () => {
  const { forwarder } = makeForwarder({}, {
    rules: {
      tcp: parse("all,~22"),
      udp: parse("192.0.2.1%eth0/53:192.0.2.9/153"),
      tcpNs: parse("auto"),
      udpNs: [],
    },
  });
  forwarder.open(10);
  assertEquals(texts(forwarder, "t"), ["all,~22"]);
  assertEquals(texts(forwarder, "u"), ["192.0.2.1%eth0/53:192.0.2.9/153"]);
  assertEquals([texts(forwarder, "T"), texts(forwarder, "U")], [["auto"], []]);
});
