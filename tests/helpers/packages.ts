// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The Debian packages that tests use: which are there, and bringing those that are missing.
 *
 * @module
 */
import { run } from "./run.ts";

/** What assembles, compiles and runs code for the architecture that this machine is not. */
const FOREIGN = Deno.build.arch === "x86_64"
  ? [
    "binutils-aarch64-linux-gnu",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user",
  ] as const
  : [
    "binutils-x86-64-linux-gnu",
    "gcc-x86-64-linux-gnu",
    "libc6-dev-amd64-cross",
    "qemu-user",
  ] as const;

/** What runs virtual machines; their kernel is x86_64's. */
const VIRTUAL = Deno.build.arch === "x86_64" ? ["busybox-static", "qemu-system-x86"] as const : [];

/** Packages used by tests, and what for. */
export const TEST_PACKAGES = [
  "bash", // job control in the guest
  "binutils", // as: assembles the machine code of syscall scripts
  "bsdutils", // script: a terminal
  "curl",
  "dnsmasq-base", // resolver behind --dns-forward
  "dnsutils", // dig
  "ethtool",
  "fish", // its completion
  "gcc", // struct layouts, flow table benchmark
  "groff-base", // the manual page
  "iperf3",
  "iproute2",
  "iputils-ping",
  "iputils-tracepath",
  "isc-dhcp-client",
  "libc6-dev",
  "man-db", // the manual page
  "nftables", // drops frames
  "passt", // the peer, and its manual page
  "procps",
  "python3",
  "python3-scapy",
  "socat",
  "tshark",
  "traceroute",
  "udhcpc",
  "util-linux",
  "wabt", // wat2wasm
  "zsh", // its completion
  ...FOREIGN,
  ...VIRTUAL,
] as const;

/** Packages that only the benchmark uses. */
export const BENCH_PACKAGES = ["passt"] as const;

/** How long apt-get may take, in milliseconds. */
const APT_TIMEOUT_MS = 600_000;

/** Names of those packages that are not installed. */
export async function missingPackages(names: readonly string[]): Promise<string[]> {
  const format = "${binary:Package} ${db:Status-Status}\n";
  const { stdout } = await run(["dpkg-query", "-W", "-f", format, ...names]);
  const installed = new Set<string>();
  for (const line of stdout.split("\n")) {
    const [name, status] = line.split(" ");
    if (name && status === "installed") installed.add(name.replace(/:.*/, ""));
  }
  return names.filter((name) => !installed.has(name));
}

/**
 * Installs what is missing, as root; says in one line what it does or what cannot be had.
 *
 * @returns names that are still missing
 */
export async function bringPackages(names: readonly string[]): Promise<string[]> {
  const missing = await missingPackages(names);
  if (missing.length === 0) return [];
  if (Deno.uid() !== 0) {
    console.log(`Not root: tests that need ${missing.join(", ")} are skipped`);
    return missing;
  }
  console.log(`Installing Debian packages: ${missing.join(", ")}`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"];
  await run([...apt, "update"], { env, timeoutMs: APT_TIMEOUT_MS });
  const install = [...apt, "install", "--no-install-recommends", ...missing];
  const result = await run(install, { env, timeoutMs: APT_TIMEOUT_MS });
  if (result.code !== 0 && missing.length > 1) {
    // one that cannot be had must not keep the others away
    for (const name of missing) {
      const one = [...apt, "install", "--no-install-recommends", name];
      await run(one, { env, timeoutMs: APT_TIMEOUT_MS });
    }
  }
  const left = await missingPackages(names);
  if (left.length > 0) {
    const reason = result.stderr.trim().split("\n").at(-1) ?? "";
    console.log(`Could not install ${left.join(", ")}: ${reason}`);
  }
  return left;
}
