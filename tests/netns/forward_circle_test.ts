// SPDX-License-Identifier: GPL-2.0-or-later
/** Ports forwarded to themselves: no connection may go round in circles. */
import { assert, assertEquals } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import {
  ask,
  descriptorsOf,
  engineOf,
  hostOf,
  optionsFor,
  portsCommand,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { Net, Testbed } from "../helpers/testbed.ts";

const PORT = 8121;
const TARGET_PORT = 8122;
const NEEDS = requirements({ packages: ["python3"], tubetti: true });
/** Descriptors that a few connections may have open until the next scan of the flow table. */
const FEW = 20;

const BOTH = { t: `${PORT}`, T: `${PORT}`, u: `${PORT}`, U: `${PORT}` };
const CIRCLES: [name: string, options: string[], configure: boolean][] = [
  ["--host-lo-to-ns-lo", ["--host-lo-to-ns-lo", ...optionsFor(BOTH)], true],
  ["a target that is loopback", optionsFor({ ...BOTH, t: `${PORT}:127.0.0.1/${PORT}` }), true],
  ["a guest without addresses", optionsFor(BOTH), false],
];

Deno.test({
  name: "forward circle: ports that lead to themselves refuse connections, and nothing runs out",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create({});
    for (const [name, options, configure] of CIRCLES) {
      await t.step(name, async () => {
        const guest = await bed.idleGuest({ options, unconfigured: !configure });
        const before = descriptorsOf(engineOf(bed));
        for (const place of [hostOf(bed), guest]) {
          for (const address of ["127.0.0.1", "127.0.0.1", "127.0.0.1"]) {
            const { error } = await edge(place, "connect", address, PORT);
            assert(["ECONNREFUSED", "ECONNRESET", ""].includes(error ?? ""), `${error}`);
          }
        }
        const after = descriptorsOf(engineOf(bed));
        assert(after - before < FEW, `${before} descriptors became ${after}`);
        await guest.stop();
      });
    }
  },
});

Deno.test({
  name: "forward circle: -T with a target on the network leaves from the address of -o",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create({});
    const server = portsCommand("who", TARGET_PORT);
    await bed.serveRemote(server, { tcp: TARGET_PORT });
    const options = optionsFor({ T: `${PORT}:${Net.REMOTE4}/${TARGET_PORT}` });
    const guest = await bed.idleGuest({ options: [...options, "-o", Net.HOST4] });
    assertEquals(await ask(guest, "tcp", PORT, "127.0.0.1"), {
      [`tcp 127.0.0.1 ${PORT}`]: `${TARGET_PORT} ${Net.HOST4}`,
    });
    await guest.stop();
  },
});
