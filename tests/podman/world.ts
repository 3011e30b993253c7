// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the steps of the test with podman share: the machine, its surroundings, and how to ask servers.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { formatAddress, parseAddress } from "../../lib/wire/address.ts";
import { PYTHON } from "../helpers/edge.ts";
import { type Result, run, until } from "../helpers/run.ts";
import { Net, Testbed } from "../helpers/testbed.ts";
import { explain, Machine } from "./machine.ts";
import type { Transcript } from "./transcript.ts";

export const HTTP_PORT = 25451;
export const UDP_PORT = 25452;
export const HOST_PORT = 25461;
export const NAME = "printer.example.com";
export const ANSWERS = ["192.0.2.77", "2001:db8::77"];
/** Address of the resolver, and of the host, that podman gives to containers. */
export const RESOLVER = "169.254.1.1", HOST = "169.254.1.2";
export const FILE_BYTES = 20_000_000;
/** Line of the shell for a container that only stays. */
export const STAY = "exec sleep 3600";

/** A server in a container, or on the machine, that says who asked. */
export const tcpServer = (port: number, says = "hello") =>
  `socat TCP6-LISTEN:${port},fork,reuseaddr,ipv6only=0 SYSTEM:'echo ${says} $SOCAT_PEERADDR'`;
export const udpServer = (port: number) =>
  `socat UDP6-RECVFROM:${port},fork,ipv6only=0 SYSTEM:'echo hello $SOCAT_PEERADDR'`;

/** What a test works with. */
export interface World {
  readonly bed: Testbed;
  readonly machine: Machine;
  readonly transcript: Transcript;
  /** SHA-256 of the file that the remote serves. */
  readonly digest: string;
}

/** socat(1) writes IPv6 addresses in full, and IPv4 ones as IPv6 when its socket is. */
export function plainAddresses(text: string): string {
  return text.replace(/\[([0-9a-f:]{39})\]/g, (_, full) => formatAddress(parseAddress(full)!));
}

/** Asks a server of {@linkcode tcpServer} or {@linkcode udpServer} until it answers. */
export async function ask(
  run: (command: string[]) => Promise<Result>,
  target: string,
): Promise<string> {
  let text = "";
  await until(async () => {
    const line = `echo question | timeout 10 socat -t2 - ${target}`;
    text = (await run(["sh", "-c", line])).stdout.trim();
    return text !== "";
  });
  return plainAddresses(text);
}

export const fromRemote = ({ bed }: World) => (command: string[]) => bed.runRemote(command);
export const fromMachine = ({ machine }: World) => (command: string[]) => machine.root(command);

/** Ends all containers; nothing may be left of them. */
export async function clear({ machine }: World): Promise<void> {
  const removed = await machine.podman(["rm", "-f", "-a", "-t", "0"]);
  assertEquals(removed.code, 0, explain(["podman", "rm"], removed));
  assertEquals(await machine.leftovers(), []);
  const { stdout } = await machine.root(["ls", "/run/user/1000/netns"]);
  assertEquals(stdout, "", "network namespaces that are still mounted");
}

export async function makeWorld(
  bed: Testbed,
  machine: Machine,
  folder: string,
  transcript: Transcript,
): Promise<World> {
  const random = ["sh", "-c", `head -c ${FILE_BYTES} /dev/urandom >${folder}/file`];
  assertEquals((await run(random)).code, 0);
  const digest = (await run(["sha256sum", `${folder}/file`])).stdout.split(" ")[0]!;
  const http = ["-m", "http.server", `${HTTP_PORT}`, "--bind", "::", "--directory", folder];
  await bed.serveRemote([PYTHON, ...http], { tcp: HTTP_PORT });
  // bound, so that answers come from where the question went
  for (
    const from of [
      `UDP4-LISTEN:${UDP_PORT},bind=${Net.REMOTE4}`,
      `UDP6-LISTEN:${UDP_PORT},bind=[${Net.REMOTE6}]`,
    ]
  ) {
    await bed.serveRemote(["socat", `${from},fork`, "EXEC:cat"], { udp: UDP_PORT });
  }
  const addresses = ANSWERS.map((answer) => `--address=/${NAME}/${answer}`);
  const dns = ["dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", "--local=/invalid/"];
  await bed.serveRemote([...dns, ...addresses], { tcp: 53, udp: 53 });
  return { bed, machine, transcript, digest };
}
