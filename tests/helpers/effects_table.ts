// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One entry for each option of pasta mode: its effect on a real namespace, by long name.
 *
 * @module
 */
import { type Effect, MORE_ROUTE4, OTHER, Port, SECOND4 } from "./effects.ts";
import {
  asks,
  attached,
  bareConfig,
  config,
  inside,
  isAsked,
  logSize,
  messages,
  namespaceOf,
  neighbour,
  printed,
  services,
  shared,
  start,
  staying,
  userStart,
} from "./effects_looks.ts";
import { Net } from "./testbed.ts";

/** A pattern that has `text` as it is, from the beginning of a line on. */
function line(text: string): RegExp {
  return new RegExp(`^${text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`, "m");
}

const GENERAL: Record<string, Effect> = {
  help: { look: printed, adds: /^Usage: tubetti pasta /, hides: /^command$/m },
  version: { look: printed, adds: /^tubetti \d+\.\d+\.\d+/, hides: /^command$/m },
  quiet: { look: messages, hides: /^stderr: Template interface/m },
  debug: { look: messages, adds: /^stderr: .*Flow 0 \(ICMP ping sequence\): /m },
  trace: { look: messages, adds: /^stderr: .*\bICMP\b.*192\.0\.2\.2/im },
  foreground: { look: staying, adds: /^in the foreground/m, hides: /^in the background/m },
  stderr: { look: messages, keeps: /^stderr: Template interface/m },
  "chroot-fallback": { look: start, keeps: /^exit 0\nran$/m },
  "log-file": {
    value: ({ folder }) => `${folder}/log`,
    look: messages,
    adds: /^file: .*Template interface/m,
    hides: /^stderr: Template interface/m,
  },
  "log-size": { value: "40960", look: logSize, adds: /^small/, hides: /^large/ },
  pcap: { value: ({ folder }) => `${folder}/pcap`, look: inside, adds: /^pcap +d4 c3 b2 a1/m },
  pid: { value: ({ folder }) => `${folder}/pid`, look: inside, adds: /^pid \d+$/m },
  runas: {
    value: "1000:7",
    look: inside,
    adds: /^user +0 +1000 +1\ngroup +0 +7 +1$/m,
    hides: /^user +0 +0 +1$/m,
  },
};

const SHARED: Record<string, Effect> = {
  control: { value: "7", look: shared, adds: /^heard ready$/m },
  "flow-table": { value: "8", look: shared, adds: /^file tbFL$/m },
};

const ADDRESSES: Record<string, Effect> = {
  address: {
    value: "10.1.2.3/20",
    look: config,
    adds: / 10\.1\.2\.3\/20 /,
    hides: / 192\.0\.2\.2\//,
  },
  netmask: { value: "20", look: config, adds: / 192\.0\.2\.2\/20 /, hides: / 192\.0\.2\.2\/24 / },
  gateway: {
    value: "192.0.2.9",
    look: config,
    adds: line("default via 192.0.2.9 "),
    hides: line(`default via ${Net.GATEWAY4} `),
  },
  mtu: { value: "1400", look: config, adds: /: uplink0: .* mtu 1400 /, hides: / mtu 65520 / },
  "mac-addr": {
    value: "02:00:00:00:00:08",
    look: neighbour,
    adds: /lladdr 02:00:00:00:00:08/,
    hides: /lladdr 9a:55:9a:55:9a:55/,
  },
  "no-map-gw": {
    look: asks(`tcp ${Net.GATEWAY4} ${Port.LOOPBACK}`),
    adds: /: 192\.0\.2\.1 \d+ asked by/,
    hides: /: 127\.0\.0\.1 \d+ asked by/,
  },
  "map-host-loopback": {
    value: "192.0.2.77",
    look: asks(`tcp 192.0.2.77 ${Port.LOOPBACK}`),
    adds: /: 127\.0\.0\.1 \d+ asked by/,
  },
  "map-guest-addr": {
    value: "192.0.2.78",
    look: asks(`tcp 192.0.2.78 ${Port.HOST}`),
    adds: /: 192\.0\.2\.2 \d+ asked by/,
  },
  "ipv4-only": { look: config, hides: / 2001:db8:1::2\/64 / },
  "ipv6-only": { look: config, hides: / 192\.0\.2\.2\/24 / },
};

const NAMES: Record<string, Effect> = {
  dns: {
    value: "192.0.2.53",
    beside: ["--dhcp-dns"],
    look: services,
    adds: line("dhcp 6 c0000235"),
    hides: line("dhcp 6 c6336401"),
  },
  "dns-forward": {
    value: "192.0.2.53",
    look: asks(`udp 192.0.2.53 ${Port.DNS}`, `tcp 192.0.2.53 ${Port.DNS}`),
    adds: /^udp .*: 198\.51\.100\.1 53 asked.*\ntcp .*: 198\.51\.100\.1 53 asked/,
  },
  "dns-host": {
    value: Net.GATEWAY4,
    beside: ["--dns-forward", "192.0.2.53"],
    look: asks(`udp 192.0.2.53 ${Port.DNS}`),
    adds: /: 192\.0\.2\.1 53 asked/,
    hides: /: 198\.51\.100\.1 53 asked/,
  },
  search: {
    value: "first.test",
    beside: ["--dhcp-search"],
    look: services,
    adds: line(`dhcp 119 05${hex("first")}04${hex("test")}00`),
    hides: line(`dhcp 119 07${hex("example")}03${hex("com")}00`),
  },
  "dhcp-dns": { look: services, adds: /^dhcp 6 c6336401$[^]*^dhcpv6 23 [^]*^ra 25 /m },
  "dhcp-search": { look: services, adds: /^dhcp 119 [^]*^dhcpv6 24 [^]*^ra 31 /m },
  hostname: { value: "guest7", look: services, adds: line(`dhcp 12 ${hex("guest7")}`) },
  fqdn: {
    value: "guest7.test",
    look: services,
    adds: new RegExp(`^dhcp 81 .*06${hex("guest7")}04${hex("test")}00`, "m"),
  },
};

function hex(text: string): string {
  return new TextEncoder().encode(text).toHex();
}

const HOST: Record<string, Effect> = {
  interface: { value: OTHER.name, look: config, adds: /other0 .* 10\.77\.0\.2\/24/ },
  outbound: {
    value: SECOND4,
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    adds: /asked by 192\.0\.2\.99\n.*asked by 192\.0\.2\.99$/m,
    hides: /asked by 192\.0\.2\.2$/m,
  },
  "outbound-if4": {
    value: OTHER.name,
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    adds: /asked by 10\.77\.0\.2\n.*asked by 10\.77\.0\.2$/m,
    hides: /asked by 192\.0\.2\.2$/m,
  },
  "outbound-if6": {
    value: OTHER.name,
    look: asks(`tcp ${Net.REMOTE6} ${Port.REMOTE}`, `udp ${Net.REMOTE6} ${Port.REMOTE}`),
    adds: /asked by 2001:db8:77::2\n.*asked by 2001:db8:77::2$/m,
    hides: /asked by 2001:db8:1::2$/m,
  },
};

const { FORWARDED, GUEST } = Port;
const NOTHING = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
const served = [`${Net.HOST4} ${GUEST}`];
const forwarded = `127.0.0.1 ${FORWARDED}`;

const TRAFFIC: Record<string, Effect> = {
  "tcp-ports": {
    value: `${FORWARDED}:${GUEST}`,
    beside: ["-u", "none", "--config-net"],
    look: isAsked(served, `tcp ${forwarded}`),
    adds: /: 192\.0\.2\.2 8904 asked/,
  },
  "udp-ports": {
    value: `${FORWARDED}:${GUEST}`,
    beside: ["-t", "none", "--config-net"],
    look: isAsked(served, `udp ${forwarded}`),
    adds: /: 192\.0\.2\.2 8904 asked/,
  },
  "tcp-ns": {
    value: `${FORWARDED}:${Port.LOOPBACK}`,
    look: asks(`tcp ${forwarded}`),
    adds: /: 127\.0\.0\.1 25902 asked/,
  },
  "udp-ns": {
    value: `${FORWARDED}:${Port.LOOPBACK}`,
    look: asks(`udp ${forwarded}`),
    adds: /: 127\.0\.0\.1 25902 asked/,
  },
  freebind: {
    beside: ["-q", "-t", `203.0.113.77/${FORWARDED}`, "-u", "none"],
    look: start,
    adds: /^exit 0\nran$/m,
    hides: /^exit 1\n/,
  },
  "no-splice": {
    beside: ["--config-net", ...NOTHING.slice(2), "-t", `${FORWARDED}:${GUEST}`],
    look: isAsked(served, `tcp ${forwarded}`),
    adds: /asked by 192\.0\.2\.1$/m,
    hides: /asked by 192\.0\.2\.2$/m,
  },
  "host-lo-to-ns-lo": {
    beside: ["--config-net", ...NOTHING.slice(2), "-t", `${FORWARDED}:${GUEST}`],
    look: isAsked([...served, `127.0.0.1 ${GUEST}`], `tcp ${forwarded}`),
    adds: /: 127\.0\.0\.1 8904 asked/,
    hides: /: 192\.0\.2\.2 8904 asked/,
  },
  "allow-out": {
    value: `${Net.REMOTE4}:${Port.REMOTE}/tcp`,
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    hides: /^udp .* asked by/m,
    keeps: /^tcp .* asked by/m,
  },
  "deny-out": {
    value: `${Net.REMOTE4}/tcp`,
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    hides: /^tcp .* asked by/m,
    keeps: /^udp .* asked by/m,
  },
  policy: {
    value: ({ folder }) => {
      const path = `${folder}/policy.ts`;
      const text =
        'export default (f: { protocol: string }) => f.protocol === "tcp" ? "allow" : "drop";';
      Deno.writeTextFileSync(path, text);
      return path;
    },
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    hides: /^udp .* asked by/m,
    keeps: /^tcp .* asked by/m,
  },
  "no-tcp": {
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    hides: /^tcp .* asked by/m,
    keeps: /^udp .* asked by/m,
  },
  "no-udp": {
    look: asks(`tcp ${Net.REMOTE4} ${Port.REMOTE}`, `udp ${Net.REMOTE4} ${Port.REMOTE}`),
    hides: /^udp .* asked by/m,
    keeps: /^tcp .* asked by/m,
  },
  "no-icmp": {
    look: asks(`ping ${Net.REMOTE4}`, `tcp ${Net.REMOTE6} ${Port.REMOTE}`),
    hides: /^ping .*: answered$/m,
    keeps: /^tcp .* asked by/m,
  },
  "no-dhcp": { look: services, hides: /^dhcp$/m, keeps: /^dhcpv6$[^]*^ra$/m },
  "no-dhcpv6": { look: services, hides: /^dhcpv6$/m, keeps: /^dhcp$[^]*^ra$/m },
  "no-ndp": { look: services, hides: /^(ra|na)$/m, keeps: /^dhcp$[^]*^dhcpv6$/m },
  "no-ra": { look: services, hides: /^ra$/m, keeps: /^dhcp$[^]*^na$/m },
};

const NAMESPACE: Record<string, Effect> = {
  "config-net": {
    look: bareConfig,
    adds: /uplink0 .*inet 192\.0\.2\.2\/24[^]*^default via .*[^]*uplink0: <[A-Z,_]*UP/m,
    hides: /uplink0: <BROADCAST,MULTICAST> /,
  },
  "ns-ifname": { value: "net7", look: config, adds: /: net7: /, hides: /: uplink0: / },
  "ns-mac-addr": { value: "02:00:00:00:00:07", look: config, adds: /ether 02:00:00:00:00:07 / },
  userns: {
    value: ({ target }) => `/proc/${target}/ns/user`,
    look: (world, options) =>
      userStart(world, ["--netns", `/proc/${world.target}/ns/net`, ...options]),
    adds: /^exit 0$/m,
    hides: /^exit 1\ntubetti: /,
  },
  netns: { value: namespaceOf, look: attached, adds: /: uplink0: <.*\bUP\b/ },
  "netns-only": { look: inside, adds: /^namespace ours$/m, hides: /^namespace user:/m },
  "no-netns-quit": { look: staying, adds: /^stays$/m, hides: /^ends$/m },
  "no-copy-routes": {
    look: config,
    hides: line(`${MORE_ROUTE4} via`),
    keeps: line("default via "),
  },
  "no-copy-addrs": { look: config, hides: / 192\.0\.2\.99\//, keeps: / 192\.0\.2\.2\// },
};

/** Effects by the long name of the option. */
export const EFFECTS: Readonly<Record<string, Effect>> = {
  ...GENERAL,
  ...SHARED,
  ...ADDRESSES,
  ...NAMES,
  ...HOST,
  ...TRAFFIC,
  ...NAMESPACE,
};
