// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a guest does about its network: being configured, and carrying data to and from the testbed.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { must } from "../helpers/run.ts";
import type { Testbed } from "../helpers/testbed.ts";
import { type Guest, hasKvm } from "./guest.ts";

/** The guest's interface. */
export const CARD = "eth0";

/** More than any answer announces, so that a smaller one shows. */
const MOST_MTU = 65535;

const TRANSFER_TIMEOUT_MS = 120_000;
const MB = 1 << 20;

/** What a client noted down, by name. */
export type Lease = Record<string, string>;

/** Reads NAME=VALUE lines. */
export function variables(text: string): Lease {
  const lines = text.split("\n").filter((line) => line.includes("="));
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf("=");
    return [line.slice(0, at), line.slice(at + 1)];
  }));
}

/** Switches the guest's interface on, with an MTU that lets any announced one show. */
export async function switchOn(guest: Guest): Promise<void> {
  await guest.must(`ip link set ${CARD} mtu ${MOST_MTU} up`);
}

/** Takes an IPv4 address by DHCP; returns what the server said. */
export async function dhcp(guest: Guest): Promise<Lease> {
  const client = "udhcpc -n -q -t 10 -T 1 -s /etc/udhcpc.sh -O mtu -O search";
  return variables(await guest.must(`${client} -i ${CARD} >&2 2>/dev/null; cat /tmp/lease`));
}

/** Waits for the address made of a router advertisement; returns it, with its prefix length. */
export async function slaac(guest: Guest): Promise<string> {
  const show = `ip -6 addr show dev ${CARD} scope global`;
  const line = await guest.until(`${show} | grep inet6 | grep -v tentative`);
  return line.trim().split(/\s+/)[1]!;
}

/** Takes an IPv6 address by DHCPv6; returns what the server said. */
export async function dhcpv6(guest: Guest): Promise<Lease> {
  const files = "-sf /etc/dhclient.sh -pf /tmp/dhclient.pid -lf /tmp/dhclient.leases";
  return variables(await guest.must(`dhclient -6 -1 ${files} ${CARD} 2>&1; cat /tmp/lease6`));
}

/** All of it, for guests that only have to work. */
export async function configure(guest: Guest): Promise<void> {
  await switchOn(guest);
  await dhcp(guest);
  await slaac(guest);
}

/** Mebibytes of a transfer that shows that every byte arrives. */
export async function bulkMegabytes(): Promise<number> {
  return await hasKvm() ? 256 : 64;
}

/** Memory in MiB of a guest that holds a transfer. */
export async function bulkMemory(): Promise<number> {
  return await hasKvm() ? 512 : 256;
}

/** A file of random bytes on the testbed's side. */
export class Bulk implements AsyncDisposable {
  readonly folder: string;
  readonly megabytes: number;
  readonly #sum: string;

  private constructor(folder: string, megabytes: number, sum: string) {
    this.folder = folder;
    this.megabytes = megabytes;
    this.#sum = sum;
  }

  static async create(megabytes: number): Promise<Bulk> {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-bulk-` });
    await must(["sh", "-c", `head -c ${megabytes * MB} /dev/urandom >${folder}/file`]);
    return new Bulk(folder, megabytes, await sumOf(`${folder}/file`));
  }

  /** Fetches the file into the guest, from a server in the remote namespace. */
  async fetch(bed: Testbed, guest: Guest, address: string, port: number): Promise<void> {
    const listen = `TCP6-LISTEN:${port},ipv6only=0,reuseaddr`;
    const server = await bed.serveRemote(["socat", "-u", `OPEN:${this.folder}/file`, listen], {
      tcp: port,
    });
    const client = `socat -u TCP:${bracketed(address)}:${port} CREATE:/tmp/file`;
    const sum = await guest.must(`${client} && sha256sum /tmp/file`, TRANSFER_TIMEOUT_MS);
    assertEquals(sum.split(" ")[0], this.#sum);
    await server.wait();
  }

  /** Sends the guest's copy back, to a server in the remote namespace. */
  async send(bed: Testbed, guest: Guest, address: string, port: number): Promise<void> {
    const back = `${this.folder}/back`;
    const listen = `TCP6-LISTEN:${port},ipv6only=0,reuseaddr`;
    const server = await bed.serveRemote(["socat", "-u", listen, `CREATE:${back}`], { tcp: port });
    const client = `socat -u OPEN:/tmp/file TCP:${bracketed(address)}:${port}`;
    await guest.must(client, TRANSFER_TIMEOUT_MS);
    await server.wait();
    assertEquals(await sumOf(back), this.#sum);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function sumOf(path: string): Promise<string> {
  return (await must(["sha256sum", path])).split(" ")[0]!;
}

/** An address as socat(1) takes it before a port. */
export function bracketed(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** What `peer echo` prints when all comes back as it was sent. */
export function allSame(sizes: readonly number[]): string {
  return sizes.map((size) => `${size} same\n`).join("");
}
