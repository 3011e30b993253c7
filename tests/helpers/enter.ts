// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Network namespaces for tests that call our own code inside them: made with ip-netns(8), entered by
 * the calling thread with setns(2) and left again.
 *
 * @module
 */
import { check } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { must, run } from "./run.ts";

const CLONE_NEWNET = 0x40000000n; // linux/sched.h
const SYS_SETNS = Deno.build.arch === "x86_64" ? 308n : 268n; // asm/unistd.h
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h

let made = 0;

function openFile(path: string): number {
  return check(libc.open(new TextEncoder().encode(`${path}\0`), O_CLOEXEC, 0), "open", path);
}

function setns(fd: number): void {
  if (libc.syscall(SYS_SETNS, BigInt(fd), CLONE_NEWNET, 0n, 0n, 0n) !== 0n) {
    throw new Error("setns failed");
  }
}

/** A network namespace that is gone after `await using`. */
export class TestNamespace {
  readonly name: string;

  private constructor() {
    this.name = `tbe-${Deno.pid}-${++made}`;
  }

  /** Makes a namespace and runs commands (as for `ip -n NAME`) in it, one a line. */
  static async create(commands = ""): Promise<TestNamespace> {
    const namespace = new TestNamespace();
    await must(["ip", "netns", "add", namespace.name]);
    try {
      await namespace.exec(["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]);
      await namespace.batch(commands);
    } catch (error) {
      await namespace[Symbol.asyncDispose]();
      throw error;
    }
    return namespace;
  }

  /** Runs many `ip` commands, one a line. */
  async batch(commands: string): Promise<void> {
    if (commands.trim() === "") return;
    await must(["ip", "-n", this.name, "-batch", "-"], { stdin: `${commands}\n` });
  }

  /** Runs a program in the namespace. @returns its standard output */
  exec(command: readonly string[]): Promise<string> {
    return must(["ip", "netns", "exec", this.name, ...command]);
  }

  /** `ip -j` with arguments, parsed. */
  // deno-lint-ignore no-explicit-any
  async json(...args: string[]): Promise<any[]> {
    const text = await must(["ip", "-n", this.name, "-j", "-d", ...args]);
    return text.trim() === "" ? [] : JSON.parse(text);
  }

  /** Calls `body`, which must be synchronous, inside the namespace. */
  enter<T>(body: () => T): T {
    const own = openFile("/proc/thread-self/ns/net"), other = openFile(`/run/netns/${this.name}`);
    try {
      setns(other);
      return body();
    } finally {
      setns(own);
      libc.close(own);
      libc.close(other);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run(["ip", "netns", "del", this.name]);
  }
}
