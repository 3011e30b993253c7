// SPDX-License-Identifier: GPL-2.0-or-later
/** The segment that is added to an executable, and the code that starts in it. */
import { assertEquals, assertThrows } from "@std/assert";
import { Elf } from "../../scripts/standalone/elf.ts";
import { STUB, stub } from "../../scripts/standalone/stub.ts";
import { type Architecture, requirements, toolPackage } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";

const SOURCES = new URL("../../scripts/standalone", import.meta.url).pathname;
const ARCHITECTURES: readonly Architecture[] = ["x86_64", "aarch64"];
const EM_MIPS = 8; // elf.h
/** More than all headers of an executable take. */
const HEADERS = 4096;

/** Prints its arguments, what the two ways to the environment have, and the auxiliary vector's page size. */
const PROGRAM = `
  #include <stdio.h>
  #include <stdlib.h>
  #include <sys/auxv.h>
  extern char **environ;
  int main(int argc, char **argv, char **envp) {
    for (int i = 1; i < argc; i++) printf("[%s]", argv[i]);
    printf("%d", argv[argc] == 0);
    for (char **e = environ; *e; e++) printf(" %s", *e);
    for (; *envp; envp++) printf(" %s", *envp);
    printf(" %s %d\\n", getenv("LAST"), getauxval(AT_PAGESZ) >= 4096);
    return argc;
  }`;

function tool(architecture: Architecture, name: string): string {
  return architecture === Deno.build.arch ? name : `${architecture}-linux-gnu-${name}`;
}

async function inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
  try {
    return await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Compiles the program to an executable of the form that the runtime has. */
async function compiled(architecture: Architecture, folder: string): Promise<string> {
  await Deno.writeTextFile(`${folder}/program.c`, PROGRAM);
  const flags = ["-w", "-fPIC", "-pie", "-o", `${folder}/program`];
  await must([tool(architecture, "gcc"), ...flags, `${folder}/program.c`]);
  return `${folder}/program`;
}

for (const architecture of ARCHITECTURES) {
  Deno.test({
    name: `STUB.${architecture} is what the assembler makes of its source`,
    ...requirements({ root: false, packages: [toolPackage("binutils", architecture)] }),
    fn: () =>
      inFolder(async (folder) => {
        const object = `${folder}/code.o`, code = `${folder}/code`;
        const source = `${SOURCES}/stub_${architecture}.S`;
        await must([tool(architecture, "as"), "-o", object, source]);
        const copy = [tool(architecture, "objcopy"), "-O", "binary", "-j", ".text"];
        await must([...copy, object, code]);
        assertEquals((await Deno.readFile(code)).toHex(), STUB[architecture]);
      }),
  });

  Deno.test({
    name: `a program for ${architecture} gets the arguments and variables of its segment`,
    ...requirements({
      root: false,
      packages: [toolPackage("gcc", architecture)],
      runs: architecture,
    }),
    fn: () =>
      inFolder(async (folder) => {
        const path = await compiled(architecture, folder);
        const elf = new Elf(await Deno.readFile(path));
        const data = new TextEncoder().encode("data in front of the code......!");
        const code = stub(elf, elf.next.vaddr + data.length, {
          args: ["run", "", "a b"],
          environment: ["DENO_DIR=ours", "LAST=one"],
        });
        const bytes = elf.withSegment(new Uint8Array([...data, ...code]), data.length);
        assertEquals(bytes.subarray(elf.next.offset, elf.next.offset + data.length), data);
        await Deno.writeFile(path, bytes);
        const cross = architecture !== Deno.build.arch;
        const runner = cross
          ? [`qemu-${architecture}`, "-L", `/usr/${architecture}-linux-gnu`]
          : [];
        const dropped = [
          "DENO_DIR=theirs",
          "DENO_=x",
          "NODE_OPTIONS=-x",
          "COMPLETE=y",
          "OTEL_DENO=1",
        ];
        const variables = ["A=1", ...dropped, "NODE=y"];
        for (const args of [[], ["x"], ["--", "-y", "z z"]]) {
          const line = ["env", "-i", ...variables, ...runner, path, ...args];
          const output = await must(["sh", "-c", '"$@"; echo $?', "sh", ...line]);
          const words = ["run", "", "a b", ...args].map((word) => `[${word}]`).join("");
          // an emulator hands variables on in an order of its own
          const either = /^(.*)1 (A=1 NODE=y|NODE=y A=1) (.*)\n$/s.exec(output);
          const added = `DENO_DIR=ours LAST=one`;
          const rest = `${added} ${either?.[2]} ${added} one 1\n${4 + args.length}`;
          assertEquals(either?.slice(1), [words, either?.[2], rest], output);
        }
      }),
  });
}

Deno.test({
  name: "an executable keeps all segments, and gets one more behind them",
  ...requirements({ root: false, packages: ["gcc", "binutils"] }),
  fn: () =>
    inFolder(async (folder) => {
      const path = await compiled(Deno.build.arch, folder);
      const loads = async () =>
        (await must(["readelf", "-lW", path])).split("\n").filter((line) => /^ +LOAD /.test(line));
      const before = await loads(), elf = new Elf(await Deno.readFile(path));
      await Deno.writeFile(path, elf.withSegment(new Uint8Array(100), 0));
      const after = await loads();
      assertEquals(after.slice(0, -1), before);
      const [, offset, address, , size, inMemory, flags] = after.at(-1)!.trim().split(/\s+/);
      assertEquals([Number(offset), Number(address)], [elf.next.offset, elf.next.vaddr]);
      assertEquals([Number(size), Number(inMemory), flags], [100, 100, "R"]);
    }),
});

Deno.test("Elf refuses what it cannot work with", () => {
  using file = Deno.openSync(Deno.execPath());
  const start = new Uint8Array(HEADERS);
  file.readSync(start);
  const header = (change: (view: DataView) => void) => {
    const bytes = start.slice();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  const form = "not a 64-bit, little-endian, position-independent ELF";
  assertThrows(() => new Elf(new Uint8Array(3)), Error, form);
  assertThrows(() => new Elf(header((view) => view.setUint8(0, 0))), Error, form);
  assertThrows(() => new Elf(header((view) => view.setUint8(4, 1))), Error, form);
  assertThrows(() => new Elf(header((view) => view.setUint16(16, 2, true))), Error, form);
  assertThrows(
    () => new Elf(header((view) => view.setUint16(18, EM_MIPS, true))),
    Error,
    "machine 8",
  );
  assertThrows(
    () => new Elf(header((view) => view.setUint16(56, 0, true))),
    Error,
    "nothing to load",
  );
  const noNote = header((view) => view.setUint16(56, view.getUint16(56, true) - 1, true));
  assertThrows(() => new Elf(noNote).withSegment(new Uint8Array(1), 0), Error, "no PT_NOTE");
});

Deno.test("stub() refuses variables for an executable that does not say where they are", () => {
  const executable = { machine: "x86_64", entry: 0, slotOf: () => null } as const;
  assertThrows(() => stub(executable, 0, { args: [], environment: ["A=1"] }), Error, "environ");
  stub(executable, 0, { args: ["run"], environment: [] });
});
