// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task wasm`: writes lib/link/simd/checksum_wasm.ts from checksum.wat, by wat2wasm (Debian's
 * package wabt).
 *
 * @module
 */
const FOLDER = new URL("../lib/link/simd/", import.meta.url);
const LINE = 92;

/** The bytes that wat2wasm makes of checksum.wat. @throws when it fails */
export async function assemble(): Promise<Uint8Array<ArrayBuffer>> {
  const target = await Deno.makeTempFile({ suffix: ".wasm" });
  try {
    const { success, stderr } = await new Deno.Command("wat2wasm", {
      args: [new URL("checksum.wat", FOLDER).pathname, "-o", target],
      stdin: "null",
    }).output();
    if (!success) throw new Error(`wat2wasm: ${new TextDecoder().decode(stderr)}`);
    return await Deno.readFile(target);
  } finally {
    await Deno.remove(target);
  }
}

/** Text of the file for those bytes. */
function sourceOf(bytes: Uint8Array): string {
  const base64 = btoa(String.fromCharCode(...bytes));
  const lines = base64.match(new RegExp(`.{1,${LINE}}`, "g")) ?? [];
  return `// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Bytes of checksum.wat, made by \`deno task wasm\`.
 *
 * @module
 */
const BASE64 =
  ${lines.map((line) => `"${line}"`).join(" +\n  ")};

/** The module. */
export const CHECKSUM_WASM: Uint8Array<ArrayBuffer> = Uint8Array.from(
  atob(BASE64),
  (letter) => letter.charCodeAt(0),
);
`;
}

if (import.meta.main) {
  await Deno.writeTextFile(new URL("checksum_wasm.ts", FOLDER), sourceOf(await assemble()));
}
