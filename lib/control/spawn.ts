// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Instances started and steered from a script.
 *
 * ```ts
 * import { spawn } from "./spawn.ts";
 *
 * const guest = spawn({
 *   command: ["bash", "-c", "exec 3<>/dev/tcp/192.0.2.66/80"],
 *   policy: ({ address, port }) => address === "198.51.100.1" && port === 443 ? "allow" : "reject",
 *   stderr: "null",
 * });
 * for await (const event of guest.events()) {
 *   if (event.kind === "closed") console.log(event.flow.target, event.flow.bytesFromTarget);
 * }
 * console.log((await guest.status).code); // 1: connection refused
 * ```
 *
 * What a script must be permitted says {@linkcode spawn}. Importing this needs nothing.
 *
 * @module
 */
import {
  attachArguments,
  type AttachOptions,
  spawnArguments,
  type SpawnOptions,
} from "./arguments.ts";
import { DESCRIPTOR_OPTIONS } from "./child.ts";
import type { Instance } from "./instance.ts";
import { startInstance } from "./instance_handle.ts";

export type {
  AttachMachine,
  AttachNamespace,
  AttachOptions,
  AttachProcess,
  InstanceOptions,
  NamespaceOptions,
  SpawnOptions,
  Stdio,
  Texts,
} from "./arguments.ts";
export type { PolicyFunction } from "./client.ts";
export type { EventOptions, FlowEvent } from "./event_stream.ts";
export { type Forwarding, type Instance, InstanceClosedError } from "./instance.ts";
export type { ForwardEntry, ForwardRule, Ready } from "./protocol.ts";

/**
 * Runs a command in namespaces of its own, with a network.
 *
 * It returns at once; {@linkcode Instance.ready} is fulfilled when the command runs, or says why it does
 * not. When the command ends, the instance does.
 *
 * A script needs `deno run --allow-run --allow-env --allow-read --allow-ffi`: the instance is a process, gets the
 * script's variables, is looked for first, and has a flow table that the script maps. What a script may not
 * do itself, an instance may: it is a program of its own, and has all rights of the script's user.
 *
 * @throws NotCapable without one of these permissions
 * @throws ConfigError for options of a wrong type, and when the program, or the folder to start it in, is not there
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
  return startInstance(spawnArguments(options, DESCRIPTOR_OPTIONS), options, spawn);
}

/**
 * Gives a network to a namespace that others have made, or to a virtual machine.
 *
 * The instance ends when the process or path has gone; one for a virtual machine waits for the next
 * hypervisor. Namespaces can be joined by their owner, and by root: a script that runs as root gives
 * `args: ["--runas", "0"]`, as the instance runs as nobody otherwise. Permissions are those of
 * {@linkcode spawn}.
 *
 * @throws ConfigError for options of a wrong type, and when the program, or the folder to start it in, is not there
 * @example
 * ```ts
 * import { attach } from "./spawn.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const socket = `${Deno.makeTempDirSync()}/vm.socket`;
 * await using machine = attach({ socket, tcp: "2222:22" });
 * assertEquals((await machine.ready).socket, socket);
 * // qemu-system-x86_64 ... -netdev stream,id=n,server=off,addr.type=unix,addr.path=SOCKET
 * assertEquals([...machine.flows()], []);
 * assertEquals((await machine.close()).code, 0);
 * ```
 */
export function attach(options: AttachOptions): Instance {
  return startInstance(
    attachArguments(options, DESCRIPTOR_OPTIONS),
    { ...options, stdin: options.stdin ?? "null" },
    attach,
  );
}
