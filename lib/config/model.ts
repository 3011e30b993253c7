// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line as a plain object: its type and its defaults.
 *
 * @module
 */
import type { LevelName } from "@std/log";
import type { PolicyRule } from "../forward/policy_rules.ts";
import { DEFAULT_EPHEMERAL, type PortRule } from "../forward/ports.ts";
import type { Address } from "../wire/address.ts";
import { DEFAULT_LOG_SIZE } from "./values.ts";

/** What the options say about one address family; null: not given. */
export interface FamilyOptions {
  /** False with -6 (IPv4) or -4 (IPv6). */
  enabled: boolean;
  /** -a */
  address: Address | null;
  /** Length from -a or -n, 1–32 or 1–128. */
  prefixLength: number | null;
  /** -g */
  gateway: Address | null;
  /** -o */
  outboundAddress: Address | null;
  /** --outbound-if4/6 */
  outboundInterface: string | null;
  /** -D, addresses of this family. */
  dns: Address[];
  dnsForward: Address | null;
  dnsHost: Address | null;
  mapHostLoopback: Address | null;
  mapGuestAddr: Address | null;
}

/** Whose network pasta makes: that of a command to run, of a process, or a namespace's file. */
export type Target =
  | { kind: "command" }
  | { kind: "pid"; pid: number }
  | { kind: "path"; path: string };

/** Shells that there is completion for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** The command line. */
export interface Options {
  mode: "pasta" | "passt";
  target: Target;
  /** --userns, a path */
  userns: string | null;
  /** --netns-only: no user namespace is joined or made. */
  netnsOnly: boolean;
  /** False with --no-netns-quit. */
  netnsQuit: boolean;
  help: boolean;
  version: boolean;
  /** Shell whose completion is asked for. */
  completion: Shell | null;
  /** Command and arguments to run; empty: the user's shell. */
  command: string[];
  /** From -q, -d, --trace. */
  logLevel: LevelName;
  logFile: string | null;
  /** --log-size, in bytes. */
  logSize: number;
  foreground: boolean;
  /** -P */
  pidFile: string | null;
  /** --control, --flow-table: inherited descriptors. */
  control: number | null;
  flowTable: number | null;
  /** --runas as written: `UID|LOGIN[:GID|GROUP]`. */
  runas: string | null;
  pcap: string | null;
  /** -s; null: the first free of `/tmp/passt_1.socket` and so on. */
  socketPath: string | null;
  /** -F: connected socket; null: a socket is listened on. */
  fd: number | null;
  /** --one-off: we end when the first client leaves. */
  oneOff: boolean;
  vhostUser: boolean;
  printCapabilities: boolean;
  configNet: boolean;
  /** False with --no-copy-routes, --no-copy-addrs. */
  copyRoutes: boolean;
  copyAddresses: boolean;
  /** -n, 1–32; also in `v4.prefixLength`. */
  netmask: number | null;
  /** -i */
  interface: string | null;
  /** -I */
  nsInterface: string | null;
  /** --ns-mac-addr, 6 bytes */
  nsMac: Uint8Array<ArrayBuffer> | null;
  /** -M, 6 bytes */
  ourMac: Uint8Array<ArrayBuffer> | null;
  /** -m: 68–65520; 0: set and announce none; null: not given. */
  mtu: number | null;
  /** False with --no-map-gw or --map-host-loopback none. */
  mapGateway: boolean;
  v4: FamilyOptions;
  v6: FamilyOptions;
  /** Whether -D was given: /etc/resolv.conf does not count then. */
  dnsGiven: boolean;
  /** -S; null: from /etc/resolv.conf. */
  search: string[] | null;
  /** Whether resolvers and search domains are handed to the guest. */
  announceDns: boolean;
  announceSearch: boolean;
  hostname: string;
  fqdn: string;
  /** -t, -u, -T, -U: all occurrences together; empty: `none`; null: not given. */
  tcpRules: PortRule[] | null;
  udpRules: PortRule[] | null;
  tcpNsRules: PortRule[] | null;
  udpNsRules: PortRule[] | null;
  /** First and last port of the host that `all` and `auto` leave out. */
  ephemeralPorts: readonly [number, number];
  freebind: boolean;
  /** --allow-out, --deny-out, in their order. */
  policyRules: PolicyRule[];
  /** --policy: a path; `-`: who steers us decides. */
  policy: string | null;
  noSplice: boolean;
  hostLoToNsLo: boolean;
  /** False with --no-…. */
  tcp: boolean;
  udp: boolean;
  icmp: boolean;
  dhcp: boolean;
  dhcpv6: boolean;
  ndp: boolean;
  ra: boolean;
}

function familyDefaults(): FamilyOptions {
  return {
    enabled: true,
    address: null,
    prefixLength: null,
    gateway: null,
    outboundAddress: null,
    outboundInterface: null,
    dns: [],
    dnsForward: null,
    dnsHost: null,
    mapHostLoopback: null,
    mapGuestAddr: null,
  };
}

/** What holds when no option is given. */
export function defaultOptions(mode: "pasta" | "passt"): Options {
  return {
    mode,
    target: { kind: "command" },
    userns: null,
    netnsOnly: false,
    netnsQuit: true,
    help: false,
    version: false,
    completion: null,
    command: [],
    logLevel: "INFO",
    logFile: null,
    logSize: DEFAULT_LOG_SIZE,
    foreground: false,
    pidFile: null,
    control: null,
    flowTable: null,
    runas: null,
    pcap: null,
    socketPath: null,
    fd: null,
    oneOff: false,
    vhostUser: false,
    printCapabilities: false,
    configNet: false,
    copyRoutes: true,
    copyAddresses: true,
    netmask: null,
    interface: null,
    nsInterface: null,
    nsMac: null,
    ourMac: null,
    mtu: null,
    mapGateway: true,
    v4: familyDefaults(),
    v6: familyDefaults(),
    dnsGiven: false,
    search: null,
    announceDns: mode === "passt",
    announceSearch: mode === "passt",
    hostname: "",
    fqdn: "",
    tcpRules: null,
    udpRules: null,
    tcpNsRules: null,
    udpNsRules: null,
    ephemeralPorts: DEFAULT_EPHEMERAL,
    freebind: false,
    policyRules: [],
    policy: null,
    noSplice: false,
    hostLoToNsLo: false,
    tcp: true,
    udp: true,
    icmp: true,
    dhcp: true,
    dhcpv6: true,
    ndp: true,
    ra: true,
  };
}
