// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { type Layout, LAYOUTS } from "../../lib/sys/layout.ts";
import { runC } from "../helpers/compile.ts";
import { requirements } from "../helpers/require.ts";

const NEEDS = requirements({ root: false, packages: ["gcc"] });

/** A program that prints size, then offset and size of each member, of one structure. */
function program({ name, headers, at }: Layout): string {
  const includes = ["stdio.h", "stddef.h", ...headers].map((header) => `#include <${header}>\n`);
  const members = Object.keys(at).map((field) =>
    `printf("${field} %zu %zu\\n", offsetof(${name}, ${field}), sizeof(((${name} *)0)->${field}));`
  );
  return `#define _GNU_SOURCE\n${includes.join("")}
    int main(void) { printf("%zu\\n", sizeof(${name})); ${members.join("\n")} }`;
}

for (const layout of LAYOUTS) {
  Deno.test({
    name: `${layout.name} is laid out as the compiler has it`,
    ...NEEDS,
    async fn() {
      const [size, ...members] = (await runC(program(layout))).trimEnd().split("\n");
      const expected = Object.keys(layout.at)
        .map((field) => `${field} ${layout.at[field]} ${layout.sizes[field]}`);
      assertEquals(members, expected);
      if (layout.size > 0) assertEquals(layout.size, Number(size));
    },
  });
}
