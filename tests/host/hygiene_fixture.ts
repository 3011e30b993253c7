// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Closes what it has inherited but the descriptors given as arguments, and tells what it found, what is
 * left, and whether the runtime still works.
 *
 * @module
 */
import { callersUmask, closeInherited, tightenUmask } from "../../lib/host/hygiene.ts";
import { inheritedDescriptors } from "../../lib/sys/descriptors.ts";

const found = inheritedDescriptors();
closeInherited(Deno.args.map(Number));
tightenUmask();
tightenUmask();

// what the runtime does with descriptors of its own: threads, timers, signals, sockets, processes
await Deno.readTextFile("/etc/hostname").catch(() => {});
await new Promise((resolve) => setTimeout(resolve, 1));
const signalled = new Promise<void>((resolve) => Deno.addSignalListener("SIGUSR1", resolve));
Deno.kill(Deno.pid, "SIGUSR1");
await signalled;
const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const [client, server] = await Promise.all([
  Deno.connect({ port: listener.addr.port, hostname: "127.0.0.1" }),
  listener.accept(),
]);
for (const socket of [client, server, listener]) socket.close();
const { code } = await new Deno.Command("true").output();

const file = Deno.makeTempFileSync({ prefix: "tubetti-hygiene-" });
const made = `${file}-made`;
Deno.writeTextFileSync(made, "");
const mode = (Deno.statSync(made).mode ?? 0) & 0o777;
Deno.removeSync(file), Deno.removeSync(made);

const umask = callersUmask();
console.log(JSON.stringify({ found, left: inheritedDescriptors(), code, mode, umask }));
Deno.exit(0);
