// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The descriptors that `--control` and `--flow-table` name, checked and taken over.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import type { Options } from "../config/options.ts";
import { HEADER_OWNER } from "../flow/layout.ts";
import { DEFAULT_CAPACITY, FlowTable } from "../flow/table.ts";
import { inheritedDescriptors, setCloseOnExec, setNonBlocking } from "../sys/descriptors.ts";
import { E, SysError } from "../sys/errno.ts";
import { statusOf } from "../sys/file.ts";
import { libc } from "../sys/libc.ts";
import { isZero, reserve, sealSize, SharedMapping } from "../sys/shared_memory.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  getOption,
  SO_DOMAIN,
  SO_TYPE,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { ControlServer } from "./server.ts";

/** Flows that there must be room for at least. */
const MIN_CAPACITY = 128;
const SEEK_END = 2; // unistd.h
/** First descriptor behind standard input, output and error. */
const FIRST_OTHER_FD = 3;
/** Closed descriptors in a row behind which there are no open ones: each new one has the lowest free number. */
const MAX_GAP = 1 << 16;

/** Memory for a table of flows. */
export interface SharedTable {
  readonly buffer: ArrayBuffer;
  /** Number of flows. */
  readonly capacity: number;
}

/** Takes a descriptor over, so that a command does not get it. @throws ConfigError when nobody gave it to us */
function takeOver(option: string, fd: number, others: readonly (number | null)[]): void {
  if (others.includes(fd)) throw new ConfigError(`${option} ${fd}: also given for another option`);
  if (!inheritedDescriptors().includes(fd)) {
    throw new ConfigError(`${option} ${fd}: no descriptor that we have inherited`);
  }
  setCloseOnExec(fd);
}

/** Whether a descriptor is a UNIX stream socket with somebody at its other end. */
function isConnected(fd: number): boolean {
  if (getOption(fd, SOL_SOCKET, SO_TYPE) !== SOCK_STREAM) return false;
  if (getOption(fd, SOL_SOCKET, SO_DOMAIN) !== AF_UNIX) return false;
  return libc.getpeername(fd, new Uint8Array(2), Uint32Array.of(2)) === 0;
}

/**
 * Takes over the socket of a controller.
 *
 * @throws ConfigError when it is nothing of the kind
 */
export function openControl(
  { control, flowTable, fd }: Pick<Options, "control" | "flowTable" | "fd">,
): ControlServer | null {
  if (control === null) return null;
  if (control === flowTable) return null; // refused as a table
  takeOver("--control", control, [fd]);
  if (!isConnected(control)) {
    throw new ConfigError(`--control ${control}: not a connected UNIX stream socket`);
  }
  setNonBlocking(control);
  return new ControlServer(control);
}

/** A file's size in bytes. @throws ConfigError */
function sizeOf(fd: number, name: string): number {
  if (!statusOf(fd).isRegular) throw new ConfigError(`${name}: not a regular file`);
  return Number(libc.lseek(fd, 0n, SEEK_END));
}

/**
 * Makes a mapped file ours: what is in it already would be taken for flows, and two instances must not share
 * one. It must not become too short either, not for lack of room at least.
 *
 * @throws ConfigError, SysError
 */
function claim(fd: number, name: string, mapping: SharedMapping): ArrayBuffer {
  const isNew = isZero(fd, mapping.size);
  if (isNew && !sealSize(fd)) reserve(fd, mapping.size);
  const buffer = mapping.buffer(), words = new Int32Array(buffer, 0, HEADER_OWNER + 1);
  if (isNew && Atomics.compareExchange(words, HEADER_OWNER, 0, Deno.pid) === 0) return buffer;
  throw new ConfigError(`${name}: not empty (each instance needs a new file, of zeroes only)`);
}

/**
 * Maps the file for the table of flows.
 *
 * @throws ConfigError when it is none, too small, in use or has been
 */
export function openTable(
  { control, flowTable, fd }: Pick<Options, "control" | "flowTable" | "fd">,
): SharedTable | null {
  if (flowTable === null) return null;
  const name = `--flow-table ${flowTable}`;
  takeOver("--flow-table", flowTable, [fd, control]);
  const bytes = sizeOf(flowTable, name);
  const capacity = Math.min(FlowTable.capacityOf(bytes), DEFAULT_CAPACITY);
  if (capacity < MIN_CAPACITY) {
    const needed = FlowTable.byteLength(MIN_CAPACITY);
    throw new ConfigError(`${name}: too small (${bytes} bytes, at least ${needed} are needed)`);
  }
  try {
    const size = BigInt(FlowTable.byteLength(capacity));
    const buffer = claim(flowTable, name, new SharedMapping(flowTable, { size }));
    libc.close(flowTable);
    return { buffer, capacity };
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new ConfigError(`${name}: ${error.message}`);
  }
}

/** The descriptor that the first option of a command line gives to `--control`; -1: it is another one. */
function firstControl(args: readonly string[]): number {
  const at = args[0]?.startsWith("-") ? 0 : 1;
  const text = args[at] === "--control"
    ? args[at + 1]
    : /^--control=(.*)$/.exec(args[at] ?? "")?.[1];
  return /^\d{1,9}$/.test(text ?? "") ? Number(text) : -1;
}

/**
 * Tells a controller what is wrong with a command line whose first option names its socket: the others
 * could not be read. A descriptor of another kind is left alone.
 */
export function tellFailure(args: readonly string[], error: unknown): void {
  const fd = firstControl(args);
  if (!inheritedDescriptors().includes(fd) || !isConnected(fd)) return;
  new ControlServer(fd).failed(error);
}

/**
 * Closes all ports and connections of an instance that has ended, but waits for its controller. /proc is closed to us
 * by then.
 */
export function closeNetwork(): void {
  for (let fd = FIRST_OTHER_FD, gap = 0; gap < MAX_GAP; fd++) {
    const family = getOption(fd, SOL_SOCKET, SO_DOMAIN);
    gap = family === -E.EBADF ? gap + 1 : 0;
    if (family === AF_INET || family === AF_INET6) libc.close(fd);
  }
}
