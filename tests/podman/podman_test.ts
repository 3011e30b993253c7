// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Podman with this program as its `pasta`: containers of an ordinary user in a Debian 13 machine.
 *
 * Run by `deno task test:podman`, not by the other tests: it needs a Debian root, which it builds
 * once (`scripts/podman_root.ts`). What it showed last is in `last_output.txt`.
 *
 * @module
 */
import { podmanRoot } from "../../scripts/podman_root.ts";
import { requirements } from "../helpers/require.ts";
import { Testbed } from "../helpers/testbed.ts";
import { bridges, ends, failures, pods, restarts, several, startTimes } from "./life.ts";
import { Machine } from "./machine.ts";
import { hostAddress, otherOptions, ownAddresses } from "./options.ts";
import { automatic, names, outbound, publishedTcp, publishedUdp } from "./traffic.ts";
import { Transcript } from "./transcript.ts";
import { makeWorld, type World } from "./world.ts";

/** The root, or why there is none. */
async function rootOrReason(): Promise<{ root: string; reason: string }> {
  if (Deno.uid() !== 0) return { root: "", reason: "" }; // the requirements say so
  try {
    return { root: await podmanRoot(), reason: "" };
  } catch (error) {
    return { root: "", reason: String(error) };
  }
}

const { root, reason } = await rootOrReason();
if (reason !== "") console.log(`Skipped, no Debian root: ${reason}`);
const needs = requirements({ packages: ["socat", "python3", "dnsmasq-base"], tubetti: true });

async function versions({ machine, transcript }: World): Promise<void> {
  const query = ["dpkg-query", "-W", "podman", "crun", "passt"];
  transcript.note((await machine.root(query)).stdout);
}

const STEPS: Record<string, (world: World) => Promise<void>> = {
  "versions": versions,
  "a container reaches others by TCP, UDP and ping, IPv4 and IPv6": outbound,
  "a container resolves names through 169.254.1.1": names,
  "-p 8080:80/tcp": publishedTcp,
  "-p 5353:53/udp, one address, a range": publishedUdp,
  "--network=pasta:-t,auto": automatic,
  "the host's address: --map-guest-addr, host.containers.internal, --map-gw": hostAddress,
  "addresses, gateway, resolver and MTU of one's own": ownAddresses,
  "-4, -I, --mtu, --pcap": otherOptions,
  "several containers at once": several,
  "nothing stays after stop, kill, rm": ends,
  "restart, stop and start": restarts,
  "what fails is said, and leaves nothing": failures,
  "pods": pods,
  "bridge networks": bridges,
  "start time beside Debian's pasta": startTimes,
};

Deno.test({
  name: "podman: containers with this program as pasta",
  ...needs,
  ignore: needs.ignore || reason !== "",
  async fn(t) {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-podman-` });
    const transcript = new Transcript();
    try {
      await using bed = await Testbed.create();
      await using machine = await Machine.start(bed, root);
      const world = await makeWorld(bed, machine, folder, transcript);
      for (const [name, step] of Object.entries(STEPS)) {
        await transcript.step(t, name, () => step(world));
        await machine.reset();
      }
    } finally {
      await transcript.save();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
