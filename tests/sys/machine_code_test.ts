// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { type Architecture, load, MACHINE_CODE } from "../../lib/sys/asm/machine_code.ts";
import { SYSCALL_NUMBERS } from "../../lib/sys/syscalls.ts";
import { runC } from "../helpers/compile.ts";
import { requirements, toolPackage } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";

const SOURCES = new URL("../../lib/sys/asm", import.meta.url).pathname;
const ARCHITECTURES: readonly Architecture[] = ["x86_64", "aarch64"];

/** Binutils for an architecture: the native ones, or the cross ones. */
function tool(architecture: Architecture, name: string): string {
  return architecture === Deno.build.arch ? name : `${architecture}-linux-gnu-${name}`;
}

async function assemble(architecture: Architecture, piece: string): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "tubetti-test-" });
  try {
    const object = `${directory}/code.o`, code = `${directory}/code`;
    await must([tool(architecture, "as"), "-o", object, `${SOURCES}/${piece}_${architecture}.S`]);
    await must([tool(architecture, "objcopy"), "-O", "binary", "-j", ".text", object, code]);
    return (await Deno.readFile(code)).toHex();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

for (const architecture of ARCHITECTURES) {
  for (const piece of ["script", "signal"] as const) {
    Deno.test({
      name: `MACHINE_CODE.${architecture}.${piece} is what the assembler makes of its source`,
      ...requirements({ root: false, packages: [toolPackage("binutils", architecture)] }),
      fn: async () =>
        assertEquals(MACHINE_CODE[architecture][piece], await assemble(architecture, piece)),
    });
  }
}

Deno.test("load() makes a page executable and not writable", () => {
  const address = load(MACHINE_CODE[Deno.build.arch].script).toString(16);
  const maps = Deno.readTextFileSync("/proc/self/maps").split("\n");
  // neighbouring mappings of the same kind may have been joined: compare ranges
  const line = maps.find((line) => {
    const [start, end] = line.split(" ")[0].split("-").map((text) => BigInt(`0x${text}`));
    return start <= BigInt(`0x${address}`) && BigInt(`0x${address}`) < end;
  });
  assertEquals(line!.split(" ")[1], "r-xp");
});

/** Loads our code into a C program, and has it run scripts; prints what came of them. */
function driver(architecture: Architecture): string {
  const { script, signal } = MACHINE_CODE[architecture];
  const bytes = (hex: string) => hex.match(/../g)!.map((byte) => `0x${byte}`).join(",");
  const nr = SYSCALL_NUMBERS[architecture];
  return `
    #include <signal.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/wait.h>
    #include <unistd.h>
    static unsigned char script[] = {${bytes(script)}}, handler[] = {${bytes(signal)}};
    struct entry { long nr, args[6], result; unsigned control, from; };
    static void *code(void *bytes, int size) {
      void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      memcpy(page, bytes, size);
      mprotect(page, 4096, PROT_READ | PROT_EXEC);
      return page;
    }
    static struct entry *table;
    static int status(long (*run)(struct entry *, long), long n) {
      int status;
      long pid = run(table, n);
      waitpid(pid, &status, 0);
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    int main(void) {
      int pipes[2];
      char text[4];
      long (*run)(struct entry *, long) = code(script, sizeof(script));
      table = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
      pipe(pipes);
      /* an open whose result is the descriptor to close; an end without a clone */
      table[0] = (struct entry){ ${nr.openat}, { -100, (long)"/dev/null" } };
      table[1] = (struct entry){ ${nr.close}, { 99 }, 0, 2, 56 };
      printf("%ld ", run(table, 2));
      printf("%d\\n", table[0].result > 2);
      /* a child that writes and exits; the parent returns at once */
      table[0] = (struct entry){ ${nr.clone}, { SIGCHLD }, -7, 1 };
      table[1] = (struct entry){ ${nr.write}, { pipes[1], (long)"abc", 3 }, 0, 2 | 4 };
      table[2] = (struct entry){ ${nr.exit_group}, { 9 } };
      printf("%d ", status(run, 3));
      printf("%ld %ld\\n", table[0].result, table[1].result);
      read(pipes[0], text, 3);
      /* an error ends the child with the status asked for; its errno can be tolerated */
      table[1] = (struct entry){ ${nr.close}, { -1 }, 0, 2 | 55 << 8 };
      printf("%d ", status(run, 3));
      printf("%ld\\n", table[1].result);
      table[1].control |= 9 << 16; /* EBADF */
      printf("%d\\n", status(run, 3));
      table[1].control = 55 << 8; /* not required */
      printf("%d\\n", status(run, 3));
      /* a zero can end it too */
      table[1] = (struct entry){ ${nr.write}, { pipes[1], (long)"abc", 0 }, 0, 4 | 56 << 8 };
      printf("%d\\n", status(run, 3));
      /* the signal handler */
      memcpy(handler + sizeof(handler) - 4, &pipes[1], 4);
      signal(SIGTERM, (void (*)(int))code(handler, sizeof(handler)));
      raise(SIGTERM);
      read(pipes[0], text, 1);
      printf("%d\\n", text[0]);
    }`;
}

for (const architecture of ARCHITECTURES) {
  const native = architecture === Deno.build.arch;
  const compiler = tool(architecture, "gcc"), emulator = `qemu-${architecture}`;
  Deno.test({
    name: `MACHINE_CODE.${architecture} runs scripts as documented${native ? "" : " (emulated)"}`,
    ...requirements({
      root: false,
      packages: [toolPackage("gcc", architecture)],
      runs: architecture,
    }),
    async fn() {
      const runner = native ? [] : [emulator];
      const output = await runC(driver(architecture), [compiler, "-static"], runner);
      assertEquals(output, "0 1\n9 0 3\n55 -9\n9\n9\n56\n15\n");
    },
  });
}
