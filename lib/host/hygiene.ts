// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What we take over from whoever started us, and must not keep: open descriptors and the file mode
 * mask.
 *
 * @module
 */
import { inheritedDescriptors } from "../sys/descriptors.ts";
import { libc } from "../sys/libc_rare.ts";

/** Files of ours are for us only, unless they get another mode (umask(2)). */
const TIGHT_UMASK = 0o077;

let callers: number | null = null;

/**
 * Closes the descriptors that we inherited, but the three standard ones.
 *
 * @param keep those that options name, and what the start itself needs
 */
export function closeInherited(keep: readonly number[] = []): void {
  for (const fd of inheritedDescriptors()) if (!keep.includes(fd)) libc.close(fd);
}

/** Makes files that we create ours alone. {@linkcode callersUmask} gives what it was before. */
export function tightenUmask(): void {
  callers ??= Deno.umask(TIGHT_UMASK);
}

/** The file mode mask with which we were started: the command's. */
export function callersUmask(): number {
  return callers ?? Deno.umask();
}
