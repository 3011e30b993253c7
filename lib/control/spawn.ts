// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Instances started and steered from a script.
 *
 * ```ts ignore
 * import { spawn } from "./mod.ts";
 *
 * await using guest = spawn({
 *   command: ["curl", "-s", "https://www.example.com/"],
 *   policy: ({ names, port }) => names.includes("www.example.com") && port === 443 ? "allow" : "reject",
 * });
 * for await (const event of guest.events()) {
 *   if (event.kind === "closed") console.log(event.flow.target.address, event.flow.bytesFromTarget);
 * }
 * const { code } = await guest.status;
 * ```
 *
 * Scripts need `deno run --allow-all`: an instance is a process, and its flow table is memory that the
 * script maps.
 *
 * @module
 */
import {
  attachArguments,
  type AttachOptions,
  spawnArguments,
  type SpawnOptions,
} from "./arguments.ts";
import { DESCRIPTOR_OPTIONS, type Instance, startInstance } from "./instance_handle.ts";

export type {
  AttachOptions,
  InstanceOptions,
  NamespaceOptions,
  SpawnOptions,
  Stdio,
} from "./arguments.ts";
export type { PolicyFunction } from "./client.ts";
export type { EventOptions, FlowEvent } from "./event_stream.ts";
export { type Forwarding, type Instance, InstanceClosedError } from "./instance_handle.ts";
export type { ForwardEntry, ForwardRule, Ready } from "./protocol.ts";

/**
 * Runs a command in namespaces of its own, with a network.
 *
 * It returns at once; {@linkcode Instance.ready} is fulfilled when the command runs, or says why it does
 * not. When the command ends, the instance does.
 *
 * @throws ConfigError when the program, or the folder to start it in, is not there
 * @example
 * ```ts
 * import { spawn } from "./spawn.ts";
 * import { assertEquals } from "@std/assert";
 *
 * await using guest = spawn({ command: ["sh", "-c", "echo hello; exit 7"], stdout: "piped" });
 * assertEquals(await new Response(guest.stdout).text(), "hello\n");
 * assertEquals((await guest.status).code, 7);
 * ```
 */
export function spawn(options: SpawnOptions = {}): Instance {
  return startInstance(spawnArguments(options, DESCRIPTOR_OPTIONS), options);
}

/**
 * Gives a network to a namespace that others have made, or to a virtual machine.
 *
 * The instance ends when the process or path has gone; one for a virtual machine waits for the next
 * hypervisor.
 *
 * @throws ConfigError when the program, or the folder to start it in, is not there
 * @example
 * ```ts
 * import { attach } from "./spawn.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const unshare = new Deno.Command("unshare", { args: ["-rn", "cat"], stdin: "piped" }).spawn();
 * await using instance = attach({ pid: unshare.pid, tcp: [] });
 * assertEquals((await instance.ready).socket, null);
 * assertEquals([...instance.flows()], []);
 * await unshare.stdin.close();
 * await unshare.status;
 * ```
 */
export function attach(options: AttachOptions): Instance {
  return startInstance(attachArguments(options, DESCRIPTOR_OPTIONS), { stdin: "null", ...options });
}
