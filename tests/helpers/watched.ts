// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A guest whose flow table lies in a file, where anybody can read it while the guest is served.
 *
 * @module
 */
import { FlowReader } from "../../lib/flow/reader.ts";
import type { FlowSnapshot } from "../../lib/flow/snapshot.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { monotonicMs } from "../../lib/sys/clock.ts";
import { libc } from "../../lib/sys/libc.ts";
import { SharedMapping } from "../../lib/sys/shared_memory.ts";
import { until } from "./run.ts";
import { type IdleGuest, programUnderTest, type Testbed } from "./testbed.ts";
import { userCopy } from "./user_copy.ts";

const CAPACITY = 4096;
const FILE_MODE = 0o666; // the program may be an ordinary user's
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
/** Descriptor of the table, as the program under test has it. */
const TABLE_FD = "5";

/** A guest, and what the table says of its flows. */
export class WatchedGuest {
  readonly guest: IdleGuest;
  readonly #mapping: SharedMapping;
  readonly #reader: FlowReader;
  readonly #path: string;

  private constructor(guest: IdleGuest, path: string) {
    this.guest = guest;
    this.#path = path;
    const fd = libc.open(new TextEncoder().encode(`${path}\0`), O_CLOEXEC, 0);
    this.#mapping = new SharedMapping(fd, { readOnly: true });
    libc.close(fd);
    this.#reader = new FlowReader(this.#mapping.buffer());
  }

  /** Starts one, with `options` of the program. */
  static async start(bed: Testbed, user: boolean, options: string[]): Promise<WatchedGuest> {
    const path = await Deno.makeTempFile({ prefix: `tubetti-${Deno.pid}-flows-` });
    await Deno.truncate(path, FlowTable.byteLength(CAPACITY));
    await Deno.chmod(path, FILE_MODE);
    const { deno, project } = await userCopy();
    const program = user ? programUnderTest(deno, project) : programUnderTest();
    const shell = ["/bin/sh", "-c", `exec ${TABLE_FD}<>"$0"; exec "$@"`, path, ...program];
    const all = ["--flow-table", TABLE_FD, ...options];
    return new WatchedGuest(await bed.idleGuest({ program: shell, options: all }), path);
  }

  /** All flows there are. */
  flows(): FlowSnapshot[] {
    return [...this.#reader.flows(monotonicMs())];
  }

  /** Waits until one flow looks so. @returns the flow, or what there is instead */
  async flow(looks: (flow: FlowSnapshot) => boolean): Promise<FlowSnapshot | FlowSnapshot[]> {
    let found: FlowSnapshot | undefined;
    await until(() => (found = this.flows().find(looks)) !== undefined);
    return found ?? this.flows();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest.stop();
    this.#mapping.unmap();
    await Deno.remove(this.#path);
  }
}
