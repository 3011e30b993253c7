// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a test needs of the machine, so that it is skipped with a reason rather than failing.
 *
 * `scripts/test.ts` brings the packages before it starts the tests. The reasons of skipped tests
 * go to the file that `TUBETTI_TEST_SKIPS` names, one a line.
 *
 * @module
 */

/** Architectures that there is machine code for. */
export type Architecture = typeof Deno.build.arch;

/** The Debian package that has binutils or gcc for an architecture. */
export function toolPackage(tool: "binutils" | "gcc", architecture: Architecture): string {
  if (architecture === Deno.build.arch) return tool;
  return `${tool}-${architecture.replace("_", "-")}-linux-gnu`;
}

/** What a test cannot do without. */
export interface Requirements {
  /** Debian packages. */
  packages?: readonly string[];
  /** Root's rights, to make network namespaces; needed unless false. */
  root?: boolean;
  /** Code for this architecture is run, by an emulator when it is not the machine's. */
  runs?: Architecture;
  /** The machine's own architecture must be this one. */
  machine?: Architecture;
  /** Another reason why it cannot run; empty when there is none. */
  lacks?: string;
  /** The program under test must be this project's, not a peer. */
  tubetti?: boolean;
}

/** One program of each package, by which the package is recognized. */
const PROGRAMS: Record<string, string> = {
  "bash": "/bin/bash",
  "binutils": "/usr/bin/as",
  "binutils-aarch64-linux-gnu": "/usr/bin/aarch64-linux-gnu-as",
  "binutils-x86-64-linux-gnu": "/usr/bin/x86_64-linux-gnu-as",
  "bsdutils": "/usr/bin/script",
  "busybox-static": "/bin/busybox",
  "curl": "/usr/bin/curl",
  "dnsmasq-base": "/usr/sbin/dnsmasq",
  "dnsutils": "/usr/bin/dig",
  "ethtool": "/usr/sbin/ethtool",
  "fish": "/usr/bin/fish",
  "gcc": "/usr/bin/gcc",
  "gcc-aarch64-linux-gnu": "/usr/bin/aarch64-linux-gnu-gcc",
  "gcc-x86-64-linux-gnu": "/usr/bin/x86_64-linux-gnu-gcc",
  "groff-base": "/usr/bin/groff",
  "iperf3": "/usr/bin/iperf3",
  "iproute2": "/usr/bin/ip",
  "iputils-ping": "/usr/bin/ping",
  "iputils-tracepath": "/usr/bin/tracepath",
  "isc-dhcp-client": "/usr/sbin/dhclient",
  "man-db": "/usr/bin/man",
  "nftables": "/usr/sbin/nft",
  "passt": "/usr/share/man/man1/passt.1.gz",
  "python3": "/usr/bin/python3",
  "python3-scapy": "/usr/lib/python3/dist-packages/scapy/all.py",
  "qemu-system-x86": "/usr/bin/qemu-system-x86_64",
  "socat": "/usr/bin/socat",
  "tshark": "/usr/bin/tshark",
  "traceroute": "/usr/sbin/traceroute",
  "udhcpc": "/usr/sbin/udhcpc",
  "wabt": "/usr/bin/wat2wasm",
  "zsh": "/usr/bin/zsh",
};

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    // Debian's alternatives live in either directory
    return path.startsWith("/usr/sbin/") && exists(path.replace("/sbin/", "/bin/"));
  }
}

/** Reason why a test cannot run here; empty when it can. */
export function missing(needs: Requirements): string {
  if (needs.root !== false && Deno.uid() !== 0) return "needs root to make network namespaces";
  if (needs.tubetti && Deno.env.get("TUBETTI_UNDER_TEST")) return "does not apply to a peer";
  if (needs.runs && needs.runs !== Deno.build.arch && !exists(`/usr/bin/qemu-${needs.runs}`)) {
    return `needs qemu-${needs.runs} to run code of another architecture`;
  }
  if (needs.machine && needs.machine !== Deno.build.arch) {
    return `needs a machine of ${needs.machine}`;
  }
  const packages = (needs.packages ?? []).filter((name) => !exists(PROGRAMS[name] ?? name));
  if (packages.length > 0) return `needs the package ${packages.join(", ")}`;
  return needs.lacks ?? "";
}

/** To be spread into a test definition: whether it is ignored, and no sanitizing of processes. */
export function requirements(
  needs: Requirements = {},
): { ignore: boolean; sanitizeOps: boolean; sanitizeResources: boolean } {
  const reason = missing(needs);
  if (reason !== "") note(reason);
  // testbeds are disposed of at the end of the test, which the sanitizers cannot know
  return { ignore: reason !== "", sanitizeOps: false, sanitizeResources: false };
}

function note(reason: string): void {
  const file = Deno.env.get("TUBETTI_TEST_SKIPS");
  if (file) Deno.writeTextFileSync(file, `${reason}\n`, { append: true });
}
