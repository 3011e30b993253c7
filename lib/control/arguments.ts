// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a script says about an instance, and the command line that it comes to.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import type { FlowQuestion } from "../forward/question.ts";
import type { PolicyFunction } from "./client.ts";

/** One text, several or none. */
export type Texts = string | readonly string[];

/** What instances of all kinds have. They mean what the options of the command line do. */
export interface InstanceOptions {
  /**
   * TCP ports of the host that lead to the guest (`-t`), such as `"8080:80"`. None for `[]`. Unless given: those
   * that programs in the guest listen on, none for a virtual machine.
   */
  readonly tcp?: Texts;
  /** UDP ports, likewise (`-u`). Unless given: as for TCP, and the numbers of TCP's. */
  readonly udp?: Texts;
  /** What the guest may not reach: rules of `--deny-out`, such as `"10.0.0.0/8"`. They come before {@linkcode allowOut}. */
  readonly denyOut?: Texts;
  /** What it may reach: rules of `--allow-out`, such as `"*.example.com:443/tcp"`. Another order takes {@linkcode args}. */
  readonly allowOut?: Texts;
  /**
   * Decides on each flow that no rule of {@linkcode denyOut} and {@linkcode allowOut} is about: a function of
   * this script, or a module whose default export is one, by path or URL. The module is loaded into the data
   * path and answers at once. A function here may be asynchronous, and use all that the script has: each new flow
   * waits for its answer, for 30 seconds at most. A flow for which it throws is rejected.
   */
  readonly policy?: PolicyFunction | URL | string;
  /** Told when {@linkcode policy} has thrown or answered nonsense. Unless given: `console.error`, for at most ten a second. */
  readonly onPolicyError?: (error: unknown, flow: FlowQuestion) => void;
  /** Further options as on the command line, such as `["--mtu", "1500"]`. */
  readonly args?: readonly string[];
  /** Whether messages below warnings are left out (`-q`): true unless given. */
  readonly quiet?: boolean;
  /**
   * The program and what comes before `pasta` or `passt` on its command line, such as `["/usr/bin/tubetti"]`.
   * Unless given: `main.ts` of this library, run by the deno that runs the script.
   */
  readonly program?: readonly string[];
  /** Folder to start in. Unless given: the script's own. */
  readonly cwd?: string | URL;
  /** Variables in addition to the script's own, or with {@linkcode clearEnv} in place of them. */
  readonly env?: Readonly<Record<string, string>>;
  /** Whether the script's own variables are left out. */
  readonly clearEnv?: boolean;
  /** Ends the instance by SIGTERM. */
  readonly signal?: AbortSignal;
  /** Where the command reads. Unless given: `inherit`; `null` for what is attached. */
  readonly stdin?: Stdio;
  /** Where it writes. Unless given: `inherit`. */
  readonly stdout?: Stdio;
  /** Where its errors and our messages go. Unless given: `inherit`. */
  readonly stderr?: Stdio;
}

/** Where a standard stream leads. */
export type Stdio = "inherit" | "piped" | "null";

/** What instances have that serve a namespace. */
export interface NamespaceOptions extends InstanceOptions {
  /**
   * Whether the guest's interface gets its addresses and routes (`--config-net`): true unless given. Otherwise a
   * DHCP client in the namespace can do that.
   */
  readonly configNet?: boolean;
  /** TCP ports of the guest's loopback that lead to the host's (`-T`). None for `[]`. Unless given: `auto`. */
  readonly tcpNs?: Texts;
  /** UDP ports, likewise (`-U`). Unless given: `auto`, and the numbers of TCP's. */
  readonly udpNs?: Texts;
}

/** What is started with a network of its own. */
export interface SpawnOptions extends NamespaceOptions {
  /** The command and its arguments; empty or absent: the user's shell. */
  readonly command?: readonly string[];
}

/** The namespaces of a process. */
export interface AttachProcess extends NamespaceOptions {
  /** Its number. */
  readonly pid: number;
}

/** A network namespace that has a name. */
export interface AttachNamespace extends NamespaceOptions {
  /** Its path, or its name in ip-netns(8). */
  readonly netns: string;
  /** Path of the user namespace that it belongs to, unless that is ours. */
  readonly userns?: string;
}

/** A virtual machine. */
export interface AttachMachine extends InstanceOptions {
  /** UNIX socket that its hypervisor connects to. */
  readonly socket: string;
  /** Whether it does so by vhost-user. */
  readonly vhostUser?: boolean;
}

/** A namespace or virtual machine that others have made. */
export type AttachOptions = AttachProcess | AttachNamespace | AttachMachine;

const list = (texts: Texts): readonly string[] => typeof texts === "string" ? [texts] : texts;

/** `--name=TEXT` for each. */
function repeated(name: string, texts: Texts | undefined): string[] {
  return texts === undefined ? [] : list(texts).map((text) => `--${name}=${text}`);
}

/** As {@linkcode repeated}; an empty list is `none`. */
function ports(name: string, texts: Texts | undefined): string[] {
  return texts !== undefined && list(texts).length === 0
    ? [`--${name}=none`]
    : repeated(name, texts);
}

/** A file as the program finds it from any folder. @throws ConfigError */
function filePath(name: string, file: URL | string): string {
  if (typeof file === "string") return file.startsWith("/") ? file : `${Deno.cwd()}/${file}`;
  if (file.protocol === "file:") return decodeURIComponent(file.pathname);
  throw new ConfigError(`${name}: ${file} is not the URL of a file`);
}

function policyArguments({ policy }: InstanceOptions): string[] {
  if (policy === undefined) return [];
  return [`--policy=${typeof policy === "function" ? "-" : filePath("policy", policy)}`];
}

function commonArguments(options: InstanceOptions): string[] {
  return [
    ...(options.quiet ?? true ? ["--quiet"] : []),
    ...ports("tcp-ports", options.tcp),
    ...ports("udp-ports", options.udp),
    ...repeated("deny-out", options.denyOut),
    ...repeated("allow-out", options.allowOut),
    ...policyArguments(options),
  ];
}

function namespaceArguments(options: NamespaceOptions): string[] {
  return [
    ...commonArguments(options),
    ...(options.configNet ?? true ? ["--config-net"] : []),
    ...ports("tcp-ns", options.tcpNs),
    ...ports("udp-ns", options.udpNs),
  ];
}

/**
 * Mode, options and command of an instance that runs a command.
 *
 * @param descriptors options that name descriptors: they stand first
 * @throws ConfigError for what cannot be put into words
 * @example
 * ```ts
 * import { spawnArguments } from "./arguments.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const args = spawnArguments({ command: ["ls", "-l"], tcp: "8080:80", udp: [] }, ["--control=3"]);
 * assertEquals(args.slice(0, 3), ["pasta", "--control=3", "--quiet"]);
 * assertEquals(args.slice(3, 6), ["--tcp-ports=8080:80", "--udp-ports=none", "--config-net"]);
 * assertEquals(args.slice(6), ["--", "ls", "-l"]);
 * ```
 */
export function spawnArguments(options: SpawnOptions, descriptors: readonly string[]): string[] {
  const { command = [], args = [] } = options;
  if (command.length === 1 && /^\d+$/.test(command[0])) {
    throw new ConfigError(`command: ${command[0]} would be a process: use attach({ pid })`);
  }
  const rest = command.length > 0 ? ["--", ...command] : [];
  return ["pasta", ...descriptors, ...namespaceArguments(options), ...args, ...rest];
}

/** As {@linkcode spawnArguments}, for what is there already. @throws ConfigError */
export function attachArguments(options: AttachOptions, descriptors: readonly string[]): string[] {
  const { args = [] } = options;
  if ("socket" in options) {
    const machine = [`--socket=${options.socket}`, ...(options.vhostUser ? ["--vhost-user"] : [])];
    return ["passt", ...descriptors, ...commonArguments(options), ...machine, ...args];
  }
  const own = ["pasta", ...descriptors, ...namespaceArguments(options)];
  if ("pid" in options) {
    if (Number.isInteger(options.pid)) return [...own, ...args, "--", `${options.pid}`];
    throw new ConfigError(`pid: ${options.pid} is not a process ID`);
  }
  const { netns, userns } = options;
  return [...own, `--netns=${netns}`, ...repeated("userns", userns), ...args];
}
