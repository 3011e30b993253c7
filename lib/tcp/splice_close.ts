// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ends of spliced TCP flows.
 *
 * Theory of operation: end of file from one side becomes shutdown(2) of the other one when everything
 * before it is delivered; when both directions have ended, both sockets are closed, and what they still
 * hold is the kernels' business. A reset or an error of one side becomes a reset of the other. The
 * descriptors go at once, the table entry is freed by the table's next scan.
 *
 * @module
 */
import { Phase } from "../flow/snapshot.ts";
import { libc } from "../sys/libc.ts";
import { closeWithReset, SHUT_WR } from "../sys/socket.ts";
import type { SpliceState } from "./splice_state.ts";
import { SpliceBit, SpliceWord } from "./splice_words.ts";
import { base } from "./words.ts";

const BOTH_SENT = SpliceBit.END_SENT | SpliceBit.END_SENT << 1;

/** Closes both sockets of flow `i`. Harmless when that has been done. */
export function closeSplice(state: SpliceState, i: number, reset: boolean): void {
  const { data, pipes } = state;
  const d = base(i);
  if (data[d + SpliceWord.BITS] & SpliceBit.CLOSED) return;
  data[d + SpliceWord.BITS] |= SpliceBit.CLOSED;
  state.phases[i] = Phase.CLOSED;
  for (let s = 0; s < 2; s++) {
    const fd = data[d + SpliceWord.FD + s];
    if (reset) closeWithReset(fd);
    else libc.close(fd);
    data[d + SpliceWord.FD + s] = -1;
    if (data[d + SpliceWord.STUCK + s] === 0) continue;
    data[d + SpliceWord.STUCK + s] = 0;
    pipes.discard(data[d + SpliceWord.PIPE + s]);
  }
  state.ctx.closing++;
}

/** End of file has come from side `s` of flow `i`, and everything before it is delivered. */
export function passEndOn(state: SpliceState, i: number, s: number): void {
  const { data } = state;
  const d = base(i);
  const bits = data[d + SpliceWord.BITS] |= SpliceBit.END_SENT << s;
  state.phases[i] = Phase.CLOSING;
  if ((bits & BOTH_SENT) === BOTH_SENT) closeSplice(state, i, false);
  else libc.shutdown(data[d + SpliceWord.FD + 1 - s], SHUT_WR);
}
