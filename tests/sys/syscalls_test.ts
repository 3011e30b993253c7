// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { SYSCALL_NUMBERS } from "../../lib/sys/syscalls.ts";
import { runC } from "../helpers/compile.ts";
import { requirements, toolPackage } from "../helpers/require.ts";

const COMPILERS = { x86_64: "x86_64-linux-gnu-gcc", aarch64: "aarch64-linux-gnu-gcc" } as const;
const EMULATORS = { x86_64: "qemu-x86_64", aarch64: "qemu-aarch64" } as const;

for (const architecture of ["x86_64", "aarch64"] as const) {
  const native = architecture === Deno.build.arch;
  const compiler = native ? "gcc" : COMPILERS[architecture];
  const emulator = EMULATORS[architecture];
  Deno.test({
    name: `SYSCALL_NUMBERS of ${architecture} are those of the kernel's headers`,
    ...requirements({
      root: false,
      packages: [toolPackage("gcc", architecture)],
      runs: architecture,
    }),
    async fn() {
      const names = Object.keys(SYSCALL_NUMBERS[architecture]);
      const prints = names.map((name) => `printf("${name} %d\\n", __NR_${name});`).join("\n");
      const source = `#include <stdio.h>\n#include <asm/unistd.h>\nint main(void) { ${prints} }`;
      const output = await runC(source, [compiler, "-static"], native ? [] : [emulator]);
      const lines = output.trimEnd().split("\n").map((line) => line.split(" "));
      const numbers = Object.fromEntries(lines.map(([name, number]) => [name, Number(number)]));
      assertEquals(numbers, SYSCALL_NUMBERS[architecture]);
    },
  });
}
