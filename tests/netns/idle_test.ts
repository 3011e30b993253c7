// SPDX-License-Identifier: GPL-2.0-or-later
/** How often the event loop wakes up while the guest does nothing. */
import { assert, assertEquals } from "@std/assert";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { sleep } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { loopWakeUpsOf } from "../helpers/usage.ts";

const PORT = 25521;
const SECONDS = 3;
const SETTLE_MS = 1500; // what the beginning and the end of something set off
const NEEDS = requirements({ tubetti: true, packages: ["python3"] });

const SERVER = `import socket
s = socket.create_server(("", ${PORT}))
s.accept()[0].recv(1)`;

const CLIENT = `import socket, sys, time
s = socket.create_connection((sys.argv[1], ${PORT}))
print("connected", flush=True)
time.sleep(60)`;

async function wakeUps(pid: number): Promise<number> {
  const before = loopWakeUpsOf(pid);
  await sleep(SECONDS * 1000);
  return loopWakeUpsOf(pid) - before;
}

Deno.test({
  name: "idle: no wake-up without a flow, one a second with an idle connection, none after it",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create({ only: 4 });
    await bed.serveRemote(["python3", "-c", SERVER], { tcp: PORT });
    const guest = await bed.idleGuest({ options: NOTHING });
    // or the guest's kernel would look for routers now and then
    await guest.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    const [engine] = bed.engineProcesses();
    await sleep(SETTLE_MS);
    assertEquals(await wakeUps(engine!.pid), 0);
    const { remote } = Testbed.addresses(4);
    const client = guest.start(["python3", "-c", CLIENT, remote]);
    await client.waitFor("connected");
    await sleep(SETTLE_MS);
    const busy = await wakeUps(engine!.pid);
    assert(busy >= SECONDS - 1 && busy <= SECONDS + 2, `${busy} wake-ups in ${SECONDS} s`);
    await client.stop();
    await sleep(SETTLE_MS);
    assertEquals(await wakeUps(engine!.pid), 0);
  },
});
