// SPDX-License-Identifier: GPL-2.0-or-later
/** A script that serves a virtual machine: decides on its flows, sees them, and opens a port for it. */
import { assert, assertEquals } from "@std/assert";
import { peer } from "../helpers/peer.ts";
import { until } from "../helpers/run.ts";
import { Scripts } from "../helpers/scripts.ts";
import { Net, Testbed } from "../helpers/testbed.ts";
import { Guest } from "./guest.ts";
import { allSame, configure } from "./network.ts";
import { needs, TRANSPORTS } from "./world.ts";

const PORT = 25850, DENIED_PORT = 25851;
/** Port of the host that the script opens, and the guest's port that it leads to. */
const OPENED = 25852, SERVED = 25853;
/** Bytes there and back: no more than what a flow that waits for its decision may begin with. */
const BYTES = 1500;

/** Lets flows to one port, and everything that is not TCP, begin, after some thought. */
const SCRIPT = `import { attach } from "./mod.ts";
const [socket, transport] = Deno.args;
await using machine = attach({
  socket,
  vhostUser: transport === "vhost-user",
  args: ["--runas", "0"],
  policy: async ({ protocol, port }) => {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (protocol === "tcp" && port !== ${PORT}) return "reject";
    return { verdict: "allow", label: protocol };
  },
});
const events = machine.events();
await machine.ready;
await machine.forward.add({ protocol: "tcp", ports: "${OPENED}:${SERVED}" });
console.log("ready");
for await (const event of events) {
  if (event.kind !== "closed" || event.flow.protocol !== 6) continue;
  const { initiator, target, label, bytesFromInitiator, bytesFromTarget } = event.flow;
  console.log(initiator.pif, target.port, label, bytesFromInitiator, bytesFromTarget);
}
`;

for (const transport of TRANSPORTS) {
  Deno.test({
    name: `guest, ${transport}: a script decides on its connections, and opens a port`,
    ...(await needs(transport, { tubetti: true })),
    async fn(t) {
      await using bed = await Testbed.create();
      using scripts = new Scripts(bed);
      const program = await peer(), socket = `${scripts.folder}/socket`;
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT, udp: PORT });
      await bed.serveRemote([program, "serve", `${DENIED_PORT}`], { tcp: DENIED_PORT });
      const script = await scripts.start(SCRIPT, { args: [socket, transport] });
      const said = (line: string) => script.stdout.split("\n").includes(line);
      assert(await until(() => said("ready")), script.stderr);
      await using guest = await Guest.start({ transport, socket, mark: bed.guestMark });
      await configure(guest);

      for (const address of [Net.REMOTE4, Net.REMOTE6]) {
        await t.step(`${address}: what is allowed works, what is not is refused`, async () => {
          for (const protocol of ["tcp", "udp"]) {
            const { out } = await guest.run(`peer echo ${address} ${PORT} ${protocol} ${BYTES}`);
            assertEquals(out, allSame([BYTES]));
          }
          assert((await guest.run(`peer echo ${address} ${DENIED_PORT} tcp 1`)).code !== 0);
          await guest.must(`ping -c 1 -W 10 ${address}`);
        });
      }
      await t.step("the opened port leads to the guest", async () => {
        await guest.start("served", `peer serve ${SERVED}`);
        await guest.listens("tcp", SERVED);
        const command = [program, "echo", Net.HOST4, `${OPENED}`, "tcp", `${BYTES}`];
        assertEquals((await bed.runRemote(command)).stdout, allSame([BYTES]));
      });
      await t.step("every connection is told of, with its bytes", async () => {
        const told = [`TAP ${PORT} tcp ${BYTES} ${BYTES}`, `HOST ${SERVED} null ${BYTES} ${BYTES}`];
        assert(await until(() => told.every(said)), script.stdout + script.stderr);
        assert(!script.stdout.includes(`${DENIED_PORT}`), script.stdout);
      });
    },
  });
}
