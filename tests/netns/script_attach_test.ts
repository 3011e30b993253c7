// SPDX-License-Identifier: GPL-2.0-or-later
/** Scripts that attach instances to what others have made. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { run } from "../helpers/run.ts";
import { asks, IMPORT, NEEDS, PORT, told, V4, world } from "../helpers/script_world.ts";

Deno.test("attach() serves a process, a namespace by name and a hypervisor", NEEDS, async (t) => {
  await using scripts = await world();
  const { bed } = scripts;
  const name = `${bed.name}-s`;
  await run(["ip", "netns", "add", name]);
  try {
    await t.step("a namespace", async () => {
      const script = `${IMPORT}
        await using instance = attach({ netns: "${name}", tcp: [], udp: [], args: ["--runas", "0"] });
        const { interface: name } = await instance.ready;
        const events = instance.events();
        const [, ...args] = ["", "netns", "exec", "${name}", ...${asks(`tcp ${V4} ${PORT}`)}];
        const { stdout } = await new Deno.Command("ip", { args }).output();
        const first = await events.next();
        await events.return!();
        const status = await instance.close();
        console.log(JSON.stringify([name, new TextDecoder().decode(stdout), first.value.kind, status]));`;
      const [, text, kind, status] = await told<unknown[]>(scripts, script);
      assertStringIncludes(text as string, "asked by");
      assertEquals([kind, status], ["opened", { success: true, code: 0, signal: null }]);
    });
  } finally {
    await run(["ip", "netns", "del", name]);
  }
  await t.step("a process", async () => {
    const script = `${IMPORT}
      const guest = new Deno.Command("unshare", { args: ["-rn", "cat"], stdin: "piped", stdout: "null" }).spawn();
      await new Promise((resolve) => setTimeout(resolve, 300));
      const instance = attach({ pid: guest.pid, tcp: [], args: ["--runas", "0"] });
      const ready = await instance.ready;
      await guest.stdin.close(); // the instance leaves with it
      console.log(JSON.stringify([ready.socket, await instance.status]));`;
    assertEquals(await told(scripts, script), [null, { success: true, code: 0, signal: null }]);
  });
  await t.step("a hypervisor", async () => {
    const socket = `${scripts.folder}/vm.socket`;
    const script = `${IMPORT}
      await using instance = attach({ socket: "${socket}" });
      const ready = await instance.ready;
      const connection = await Deno.connect({ transport: "unix", path: "${socket}" });
      connection.close();
      console.log(JSON.stringify([ready.socket, ready.interface, await instance.close()]));`;
    const [path, interface_, status] = await told<unknown[]>(scripts, script);
    assertEquals([path, interface_], [socket, null]);
    assertEquals(status, { success: true, code: 0, signal: null });
  });
});
