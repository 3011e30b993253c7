// SPDX-License-Identifier: GPL-2.0-or-later
/** Payload bytes in the flow table are exact, for every kind of flow and direction. */
import { assert, assertEquals } from "@std/assert";
import type { FlowSnapshot } from "../../lib/flow/snapshot.ts";
import { PYTHON } from "../helpers/edge.ts";
import { optionsFor } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { Background, must, until } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { WatchedGuest } from "../helpers/watched.ts";

const SCRIPT = new URL("../helpers/counted.py", import.meta.url).pathname;
const PORT = 25461, TO_GUEST = 25462, TO_HOST = 25463;
/** Bytes of a TCP connection each way. */
const UP = 3_000_017, DOWN = 5_000_033;
/** Bytes of UDP each way: `SINGLE` and `SUPER` of the script. */
const UDP_UP = 40_001, UDP_DOWN = 40_005;
const PINGS = 4, PING_BYTES = 500;
const TIMEOUT_MS = 90_000;
const ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58; // linux/in.h, linux/in6.h
const FAMILIES = [4, 6] as const;
const LOOPBACK = ["127.0.0.1", "::1"];
const NEEDS = { packages: ["python3", "iputils-ping", "nftables", "ethtool"], tubetti: true };

function script(...args: (string | number)[]): string[] {
  return [PYTHON, SCRIPT, ...args.map(String)];
}

/** What is checked of a flow. */
function figures(flow: FlowSnapshot | FlowSnapshot[]): unknown[] {
  if (Array.isArray(flow)) return flow;
  const { protocol, state, initiator, target, bytesFromInitiator, bytesFromTarget } = flow;
  return [
    protocol,
    state,
    initiator.pif,
    target.pif,
    target.port,
    bytesFromInitiator,
    bytesFromTarget,
  ];
}

/**
 * Runs a conversation, and compares what the table says when it is done.
 *
 * @param place where the client runs: a command that enters it
 * @param expected protocol, state, interfaces of both sides, the target's port, bytes from either
 */
async function converse(
  watched: WatchedGuest,
  place: string[],
  args: (string | number)[],
  expected: [number, string, string, string, number, number, number],
): Promise<void> {
  const mark = watched.guest.bed.guestMark;
  const client = new Background([...place, ...script(...args)], { mark });
  try {
    await client.waitFor("done", TIMEOUT_MS);
    const text = JSON.stringify(expected);
    const flow = await watched.flow((flow) => JSON.stringify(figures(flow)) === text);
    assertEquals(figures(flow), expected);
    const { ageMs } = flow as FlowSnapshot;
    assert(ageMs > 0 && ageMs < TIMEOUT_MS, `${ageMs} ms old`);
  } finally {
    await client.stop();
  }
}

function inHost(bed: Testbed): string[] {
  return ["ip", "netns", "exec", bed.host];
}

for (const user of [false, true]) {
  const who = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `counters: TCP, UDP and ping through the tap${who}`,
    ...requirements(NEEDS),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const { remote: remote4 } = Testbed.addresses(4), { remote: remote6 } = Testbed.addresses(6);
      await bed.serveRemote(script("serve", PORT, remote4, remote6), { text: "ready" });
      await using watched = await WatchedGuest.start(bed, user, optionsFor({ t: `${TO_GUEST}` }));
      const { guest } = watched;
      await guest.serve(script("serve", TO_GUEST), { text: "ready" });
      for (const family of FAMILIES) {
        const { remote, host } = Testbed.addresses(family), inGuest = guest.enter([]);
        for (const half of [0, 1]) {
          const state = half ? "closing" : "open";
          await t.step(`TCP, IPv${family}, ${half ? "half-close" : "both ways at once"}`, () => {
            const args = ["tcp", remote, PORT, UP, DOWN, half];
            return converse(watched, inGuest, args, [TCP, state, "TAP", "HOST", PORT, UP, DOWN]);
          });
        }
        await t.step(`TCP to the guest, IPv${family}`, () => {
          const place = ["ip", "netns", "exec", bed.remote];
          const args = ["tcp", host, TO_GUEST, UP, DOWN, 0];
          return converse(watched, place, args, [TCP, "open", "HOST", "TAP", TO_GUEST, UP, DOWN]);
        });
        await t.step(`UDP, single and joined datagrams, IPv${family}`, () => {
          const args = ["udp", remote, PORT, UDP_UP, UDP_DOWN];
          const expected = [UDP, "open", "TAP", "HOST", PORT, UDP_UP, UDP_DOWN] as const;
          return converse(watched, inGuest, args, [...expected]);
        });
        await t.step(`ping, IPv${family}`, async () => {
          const line = `ping -n -i 0.05 -c ${PINGS} -W 5 -s ${PING_BYTES} ${remote}`;
          await must(guest.enter(line.split(" ")));
          const protocol = family === 4 ? ICMP : ICMPV6, bytes = PINGS * PING_BYTES;
          const looks = ({ protocol: its, bytesFromTarget }: FlowSnapshot) =>
            its === protocol && bytesFromTarget === bytes; // counted after it was sent
          const [, state, from, to, , up, down] = figures(await watched.flow(looks));
          assertEquals([state, from, to, up, down], ["open", "TAP", "HOST", bytes, bytes]);
        });
      }
      const connections = () => watched.flows().filter(({ protocol }) => protocol === TCP);
      assert(await until(() => connections().length === 0), JSON.stringify(connections()));
    },
  });

  Deno.test({
    name: `counters: TCP and UDP from socket to socket${who}`,
    ...requirements(NEEDS),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await bed.serveHost(script("serve", TO_HOST, ...LOOPBACK), { text: "ready" });
      const [t1, t2] = [`${TO_GUEST}`, `${TO_HOST}`];
      const options = optionsFor({ t: t1, u: t1, T: t2, U: t2 });
      await using watched = await WatchedGuest.start(bed, user, options);
      const { guest } = watched;
      const own = FAMILIES.map((family) => Testbed.addresses(family).host); // the guest's, too
      await guest.serve(script("serve", TO_GUEST, ...own), { text: "ready" });
      for (const [k, family] of FAMILIES.entries()) {
        const loopback = LOOPBACK[k];
        const ways = [
          { place: inHost(bed), from: "HOST", to: "SPLICE", port: TO_GUEST },
          { place: guest.enter([]), from: "SPLICE", to: "HOST", port: TO_HOST },
        ];
        for (const { place, from, to, port } of ways) {
          for (const half of [0, 1]) {
            const state = half ? "closing" : "open";
            await t.step(`TCP, IPv${family}, from ${from}${half ? ", half-close" : ""}`, () => {
              const args = ["tcp", loopback, port, UP, DOWN, half];
              return converse(watched, place, args, [TCP, state, from, to, port, UP, DOWN]);
            });
          }
          await t.step(`UDP, IPv${family}, from ${from}`, () => {
            const args = ["udp", loopback, port, UDP_UP, UDP_DOWN];
            return converse(watched, place, args, [UDP, "open", from, to, port, UDP_UP, UDP_DOWN]);
          });
        }
      }
    },
  });
}

const TAP = "lossy0";

/** Rules for nft(8): one segment in twenty is lost in each direction, and nothing else. */
function lossRules(device: string): string {
  const chains = ["ingress", "egress"].map((hook) =>
    `chain ${hook} { type filter hook ${hook} device "${device}" priority 0;
      meta l4proto tcp numgen random mod 20 == 0 counter drop; }`
  );
  return `table netdev loss {\n${chains.join("\n")}\n}\n`;
}

Deno.test({
  name: "counters: what is sent again over a tap that loses frames counts once",
  ...requirements(NEEDS),
  async fn(t) {
    await using bed = await Testbed.create();
    await bed.serveRemote(script("serve", PORT), { text: "ready" });
    const options = ["-m", "1500", "-I", TAP];
    await using watched = await WatchedGuest.start(bed, false, options);
    const { guest } = watched;
    const noSuperFrames = ["tso", "off", "gso", "off"]; // more frames, more of them lost
    await must(guest.enter(["ethtool", "-K", TAP, ...noSuperFrames]));
    await must(guest.enter(["nft", "-f", "-"]), { stdin: lossRules(TAP) });
    for (const family of FAMILIES) {
      await t.step(`IPv${family}`, () => {
        const args = ["tcp", Testbed.addresses(family).remote, PORT, UP, DOWN, 0];
        const expected = [TCP, "open", "TAP", "HOST", PORT, UP, DOWN] as const;
        return converse(watched, guest.enter([]), args, [...expected]);
      });
    }
    const rules = await must(guest.enter(["nft", "list", "ruleset"]));
    const lost = [...rules.matchAll(/counter packets (\d+)/g)].map(([, packets]) =>
      Number(packets)
    );
    assert(lost.length === 2 && lost.every((packets) => packets > 0), rules);
  },
});
