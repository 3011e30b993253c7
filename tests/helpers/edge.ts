// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Runs `edge.py`, both ends of unusual conversations; see that file for the modes.
 *
 * @module
 */
import type { Runner } from "./iperf.ts";
import { describe } from "./run.ts";

const SCRIPT = new URL("edge.py", import.meta.url).pathname;

/** Debian's own Python: others may be on PATH. */
export const PYTHON = "/usr/bin/python3";

/** The command line of `edge.py` with these arguments. */
export function edgeCommand(...args: (string | number)[]): string[] {
  return [PYTHON, SCRIPT, ...args.map(String)];
}

/** What `edge.py` prints; each mode fills its own properties. */
export interface EdgeResult {
  equal?: boolean;
  seconds?: number;
  reply?: string;
  error?: string;
  ms?: number;
  mss?: number;
  wrong?: unknown;
}

/** Runs `edge.py` in `place` and returns what it prints; throws when it fails. */
export async function edge(place: Runner, ...args: (string | number)[]): Promise<EdgeResult> {
  const command = edgeCommand(...args);
  const result = await place.run(command, { timeoutMs: 90_000 });
  if (result.code !== 0) throw new Error(describe(command, result));
  return JSON.parse(result.stdout);
}
