// SPDX-License-Identifier: GPL-2.0-or-later
/** Whom servers see behind a forwarded port, and which way the bytes take. */
import { assert, assertEquals } from "@std/assert";
import {
  ask,
  hostOf,
  optionsFor,
  portsCommand,
  remoteOf,
  startPorts,
  tapBytes,
} from "../helpers/ports.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { type GuestOptions, type IdleGuest, Net, Testbed } from "../helpers/testbed.ts";

const PORT = 8101;
const NEEDS = requirements({ packages: ["python3", "gcc"], tubetti: true });
const INBOUND = optionsFor({ t: `${PORT}`, u: `${PORT}` });

/** What a server in the guest sees of a client on the host's loopback, by options. */
const LOCAL: [name: string, options: string[], seen4: string, seen6: string][] = [
  ["by default, the guest's own address", [], Net.HOST4, Net.HOST6],
  ["--host-lo-to-ns-lo: the loopback", ["--host-lo-to-ns-lo"], "127.0.0.1", "::1"],
];

async function withGuest(
  bed: Testbed,
  options: GuestOptions,
  body: (guest: IdleGuest) => Promise<void>,
): Promise<void> {
  const guest = await bed.idleGuest(options);
  try {
    await body(guest);
  } finally {
    await guest.stop();
  }
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `splice source: what servers in the guest see${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      for (const [name, options, seen4, seen6] of LOCAL) {
        await t.step(
          `from the host's loopback, ${name}`,
          () =>
            withGuest(bed, { options: [...INBOUND, ...options] }, async (guest) => {
              await startPorts(guest, "who", PORT);
              assertEquals(await ask(hostOf(bed), "tcp,udp", PORT, "127.0.0.1", "::1"), {
                [`tcp 127.0.0.1 ${PORT}`]: `${PORT} ${seen4}`,
                [`tcp ::1 ${PORT}`]: `${PORT} ${seen6}`,
                [`udp 127.0.0.1 ${PORT}`]: `${PORT} ${seen4}`,
                [`udp ::1 ${PORT}`]: `${PORT} ${seen6}`,
              });
            }),
        );
      }
      await t.step(
        "from the host's loopback, --no-splice: as mapped over the tap",
        () =>
          withGuest(bed, { options: [...INBOUND, "--no-splice"] }, async (guest) => {
            await startPorts(guest, "who", PORT);
            assertEquals(await ask(hostOf(bed), "tcp,udp", PORT, "127.0.0.1", "::1"), {
              [`tcp 127.0.0.1 ${PORT}`]: `${PORT} ${Net.GATEWAY4}`,
              [`tcp ::1 ${PORT}`]: `${PORT} ${Net.GATEWAY6}`,
              [`udp 127.0.0.1 ${PORT}`]: `${PORT} ${Net.GATEWAY4}`,
              [`udp ::1 ${PORT}`]: `${PORT} ${Net.GATEWAY6}`,
            });
          }),
      );
      await t.step(
        "from the remote: its own address, over the tap",
        () =>
          withGuest(bed, { options: INBOUND }, async (guest) => {
            await startPorts(guest, "who", PORT);
            const before = await tapBytes(guest);
            // the route's source address, not that of the remote's loopback interface
            assertEquals(await ask(remoteOf(bed), "tcp,udp", PORT, Net.HOST4, Net.HOST6), {
              [`tcp ${Net.HOST4} ${PORT}`]: `${PORT} ${Net.GATEWAY4}`,
              [`tcp ${Net.HOST6} ${PORT}`]: `${PORT} ${Net.GATEWAY6}`,
              [`udp ${Net.HOST4} ${PORT}`]: `${PORT} ${Net.GATEWAY4}`,
              [`udp ${Net.HOST6} ${PORT}`]: `${PORT} ${Net.GATEWAY6}`,
            });
            assert(await tapBytes(guest) > before);
          }),
      );
      await t.step(
        "from the host at its own address: somebody who can be answered",
        () =>
          withGuest(bed, { options: INBOUND }, async (guest) => {
            await startPorts(guest, "who", PORT);
            const replies = await ask(hostOf(bed), "tcp,udp", PORT, Net.HOST4, Net.HOST6);
            for (const [question, reply] of Object.entries(replies)) {
              const [port, seen] = reply.split(" ");
              assertEquals(port, `${PORT}`, `${question}: ${reply}`);
              // shared with the guest, it can't be what the guest sees
              assert(seen !== Net.HOST4 && seen !== Net.HOST6, `${question}: ${reply}`);
            }
          }),
      );
    },
  });

  Deno.test({
    name: `splice source: a remote that is not a neighbour keeps its address${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user, far: true });
      await withGuest(bed, { options: INBOUND }, async (guest) => {
        await startPorts(guest, "who", PORT);
        const far = {
          run: (command: readonly string[]) =>
            bed.runRemote(["ip", "netns", "exec", bed.far, ...command]),
        };
        assertEquals(await ask(far, "tcp,udp", PORT, Net.HOST4, Net.HOST6), {
          [`tcp ${Net.HOST4} ${PORT}`]: `${PORT} ${Net.FAR4}`,
          [`tcp ${Net.HOST6} ${PORT}`]: `${PORT} ${Net.FAR6}`,
          [`udp ${Net.HOST4} ${PORT}`]: `${PORT} ${Net.FAR4}`,
          [`udp ${Net.HOST6} ${PORT}`]: `${PORT} ${Net.FAR6}`,
        });
      });
    },
  });

  Deno.test({
    name: `splice source: servers on the host see their loopback${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await bed.serveHost(portsCommand("who", PORT), { text: "ready\n" });
      await withGuest(
        bed,
        { options: optionsFor({ T: `${PORT}`, U: `${PORT}` }) },
        async (guest) => {
          assertEquals(await ask(guest, "tcp,udp", PORT, "127.0.0.1", "::1"), {
            [`tcp 127.0.0.1 ${PORT}`]: `${PORT} 127.0.0.1`,
            [`tcp ::1 ${PORT}`]: `${PORT} ::1`,
            [`udp 127.0.0.1 ${PORT}`]: `${PORT} 127.0.0.1`,
            [`udp ::1 ${PORT}`]: `${PORT} ::1`,
          });
          await t.step("other addresses of the guest don't lead there", async () => {
            for (const reply of Object.values(await ask(guest, "tcp", PORT, Net.HOST4))) {
              assert(/^E/.test(reply), reply);
            }
          });
        },
      );
    },
  });
}

const CONNECTIONS = 20;
const BYTES = 500_000;

/** What other traffic of the guest's kernel may add up to meanwhile. */
const NOISE = 20_000;

Deno.test({
  name: "splice source: spliced bytes don't touch the tap, those of --no-splice do",
  ...NEEDS,
  async fn(t) {
    const program = await peer();
    await using bed = await Testbed.create();
    await bed.serveHost([program, "serve", `${PORT + 1}`], { tcp: PORT + 1 });
    const options = optionsFor({
      t: `${PORT}`,
      u: `${PORT}`,
      T: `${PORT + 1}`,
      U: `${PORT + 1}`,
    });
    for (const splice of [true, false]) {
      const all = splice ? options : [...options, "--no-splice"];
      await withGuest(bed, { options: all }, async (guest) => {
        const server = guest.start([program, "serve", `${PORT}`]);
        await server.waitFor("ready\n");
        const moved = async (place: ReturnType<typeof hostOf>, address: string, port: number) => {
          const before = await tapBytes(guest);
          const short = [program, "short", address, `${port}`, `${CONNECTIONS}`, `${BYTES}`, "5"];
          const { stdout } = await place.run(short);
          assert(stdout.startsWith(`ok ${CONNECTIONS} failed 0`), stdout);
          await place.run([program, "udprr", address, `${port}`, "0.2"]);
          return await tapBytes(guest) - before;
        };
        for (const address of ["127.0.0.1", "::1"]) {
          await t.step(`${splice ? "splice" : "--no-splice"}, host to ${address}`, async () => {
            const bytes = await moved(hostOf(bed), address, PORT);
            if (splice) assert(bytes < NOISE, `${bytes} bytes went over the tap`);
            else assert(bytes > 2 * CONNECTIONS * BYTES, `${bytes} bytes went over the tap`);
          });
          if (!splice) continue;
          await t.step(`splice, guest to ${address}`, async () => {
            const bytes = await moved(guest, address, PORT + 1);
            assert(bytes < NOISE, `${bytes} bytes went over the tap`);
          });
        }
      });
    }
  },
});
