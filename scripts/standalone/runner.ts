// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The module that runs the pieces of the program.
 *
 * It makes functions of texts. As functions in the module they would be read twice and a start takes
 * 12 ms longer: V8 looks through a nested function before it compiles it.
 *
 * @module
 */
import { PART, SHARED } from "./bundle.ts";

/** The pieces, by their names in `Bundle`. */
export type Piece = "shared" | "front" | "rest";

/**
 * Source of the module.
 *
 * @param text an expression whose value is the text of a piece; it is only evaluated when that is needed
 * @param before what those expressions need
 * @example
 * ```ts
 * import { runnerOf } from "./runner.ts";
 *
 * const pieces = {
 *   shared: "return {two: 2};",
 *   rest: 'return {default: {"a.ts": {four: $shared.two * 2}}};',
 *   front: 'if ((await tubettiPart("a.ts")).four !== 4) throw new Error();',
 * };
 * const source = runnerOf((piece) => JSON.stringify(pieces[piece]));
 * await import(`data:text/javascript,${encodeURIComponent(source)}`);
 * ```
 */
export function runnerOf(text: (piece: Piece) => string, before: string = ""): string {
  // its last line names the piece in stack traces
  const body = (piece: Piece) => `${text(piece)}+"\\n//# sourceURL=tubetti:${piece}"`;
  return `${before}const F=(async()=>{}).constructor;` +
    `const shared=await new F(${body("shared")})();let rest;` +
    `globalThis.${PART}=async(path)=>` +
    `(rest??=(await new F("${SHARED}",${body("rest")})(shared)).default)[path];` +
    `await new F("${SHARED}",${body("front")})(shared);`;
}
