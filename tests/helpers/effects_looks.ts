// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ways to look at what an option does: each starts the program under test with options, and returns what
 * can be seen of it as text.
 *
 * @module
 */
import { killHard, must, run, sleep, until } from "./run.ts";
import { effectsCommand, type Look, type World } from "./effects.ts";
import { Net, programUnderTest } from "./testbed.ts";

const CONFIG_NET = "--config-net";
const QUIET = "-q";
/** A look at a namespace that is to stay, in ms. */
const STAYS_MS = 1500;
/** More lines than the smallest log file holds, when each packet takes some. */
const MANY_PINGS = 600;
const LEAST_LOG_SIZE = 40960;

const shell = (...lines: string[]): string[] => ["/bin/sh", "-c", lines.join("\n")];

/** Addresses, routes and interfaces of a configured guest. */
export async function config(world: World, options: readonly string[]): Promise<string> {
  const command = shell("ip -o addr; ip route; ip -6 route; ip -o link");
  return (await world.guest(command, [QUIET, CONFIG_NET, ...options])).stdout;
}

/** The same, of a guest that is configured only if the options say so. */
export async function bareConfig(world: World, options: readonly string[]): Promise<string> {
  return (await world.guest(shell("ip -o addr; ip route; ip -o link"), [QUIET, ...options])).stdout;
}

/** The gateway's MAC address. */
export async function neighbour(world: World, options: readonly string[]): Promise<string> {
  const command = shell(`ping -n -c 1 -W 5 ${Net.GATEWAY4}`, "ip neigh");
  return (await world.guest(command, [QUIET, CONFIG_NET, ...options])).stdout;
}

/** What DHCP, DHCPv6 and router advertisements say. */
export async function services(world: World, options: readonly string[]): Promise<string> {
  const command = effectsCommand("services", "tap0");
  return (await world.guest(command, [QUIET, "-I", "tap0", ...options])).stdout;
}

/** Asks servers from within the guest, such as `tcp 198.51.100.1 25901`. */
export function asks(...questions: string[]): Look {
  const look: Look = async (world, options) => {
    const command = effectsCommand("ask", ...questions);
    return (await world.guest(command, [QUIET, CONFIG_NET, ...options])).stdout;
  };
  return Object.defineProperty(look, "name", { value: questions.join("; ") });
}

/** Asks from the host while the guest serves there. */
export function isAsked(places: readonly string[], ...questions: string[]): Look {
  return async ({ bed }, options) => {
    const guest = await bed.startGuest(effectsCommand("serve", ...places), {
      options: [QUIET, ...options],
    });
    try {
      await guest.waitFor("ready\n");
      return (await bed.runHost(effectsCommand("ask", ...questions))).stdout;
    } finally {
      await guest.stop("SIGTERM");
      bed.killGuests();
    }
  };
}

/** Exit code and messages of a start. */
export async function start(world: World, options: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await world.start(["echo", "ran"], [CONFIG_NET, ...options]);
  return `exit ${code}\n${stdout}${stderr}`;
}

/** What comes from the program by descriptors that it is given: a socket, 7, and a file, 8. */
export async function shared(world: World, options: readonly string[]): Promise<string> {
  const program = effectsCommand("share", ...programUnderTest());
  return (await world.guest(["true"], [QUIET, CONFIG_NET, ...options], { program })).stdout;
}

/** As {@linkcode start}, as an ordinary user and without a command. */
export async function userStart(world: World, options: readonly string[]): Promise<string> {
  const background = ["-q", "-P", `${world.folder}/user-pid`];
  const { code, stderr } = await world.start([], [...background, ...options], { user: true });
  if (code === 0) await endOf(world, `${world.folder}/user-pid`);
  return `exit ${code}\n${stderr}`;
}

/** Messages while the guest pings the remote, on standard error and in the file `log`. */
export async function messages(world: World, options: readonly string[]): Promise<string> {
  const ping = ["ping", "-n", "-q", "-c", "1", "-W", "5", Net.REMOTE4];
  const { stderr } = await world.guest(ping, [CONFIG_NET, ...options]);
  const marked = (where: string, text: string) => text.replace(/^(?=.)/gm, `${where}: `);
  return marked("stderr", stderr) + marked("file", await taken(`${world.folder}/log`));
}

/** How large the log file gets when each packet is written there. */
export async function logSize(world: World, options: readonly string[]): Promise<string> {
  const file = `${world.folder}/log`;
  const ping = ["ping", "-n", "-q", "-c", `${MANY_PINGS}`, "-i", "0.002", Net.REMOTE4];
  await world.guest(ping, [CONFIG_NET, "--trace", "-l", file, ...options]);
  const { length } = await taken(file);
  return length <= LEAST_LOG_SIZE ? "small" : "large";
}

/** A file's text, which is gone then; empty when there is none. */
async function taken(file: string): Promise<string> {
  const text = await Deno.readTextFile(file).catch(() => "");
  await Deno.remove(file).catch(() => {});
  return text;
}

/** Files that are there while the command runs, and the user it runs as. */
export async function inside(world: World, options: readonly string[]): Promise<string> {
  const command = shell(
    `cd ${world.folder}`,
    `ping -n -q -c 1 -W 5 ${Net.REMOTE4} >/dev/null`,
    'test -s pid && echo "pid $(cat pid)"',
    'test -s pcap && echo "pcap $(od -An -tx1 -N4 pcap)"',
    'echo "user $(cat /proc/self/uid_map)"',
    'echo "group $(cat /proc/self/gid_map)"',
    'echo "namespace $(readlink /proc/self/ns/user)"',
  );
  const { stdout } = await world.guest(command, [QUIET, CONFIG_NET, ...options]);
  await taken(`${world.folder}/pcap`);
  return stdout.replace(Deno.readLinkSync("/proc/self/ns/user"), "ours");
}

/** Ends the instance that wrote its number to a file, and waits until it is gone. */
async function endOf(world: World, pidFile: string): Promise<void> {
  const number = await Deno.readTextFile(pidFile).catch(() => "");
  if (number.trim() !== "") Deno.kill(Number(number), "SIGTERM");
  await until(() => world.bed.engineProcesses().length === 0);
}

/** Waits until the namespace of a name has its network. */
async function untilServed(name: string): Promise<boolean> {
  return await until(async () => (await run(["ip", "-n", name, "route"])).stdout !== "");
}

/** Makes a namespace for `look`, and removes it if it is there still. */
async function withNamespace<T>(world: World, look: (name: string) => Promise<T>): Promise<T> {
  const name = `${world.bed.name}-e`;
  await must(["ip", "netns", "add", name]);
  try {
    return await look(name);
  } finally {
    world.bed.killGuests();
    await run(["ip", "netns", "del", name]);
  }
}

/** Name of the namespace that {@linkcode attached} looks at. */
export const namespaceOf = (world: World): string => `${world.bed.name}-e`;

/** Interfaces in the namespace of {@linkcode namespaceOf} after a start without a command. */
export function attached(world: World, options: readonly string[]): Promise<string> {
  return withNamespace(world, async (name) => {
    const pidFile = `${world.folder}/pid`;
    const own = [QUIET, CONFIG_NET, "-P", pidFile];
    await world.guest([], [...own, ...options], { env: { SHELL: "/bin/true" } });
    const seen = await must(["ip", "-n", name, "-o", "link"]);
    await endOf(world, pidFile);
    return seen;
  });
}

/** Which process serves an attached namespace, and what it does when that goes. */
export function staying(world: World, options: readonly string[]): Promise<string> {
  return withNamespace(world, async (name) => {
    const own = [QUIET, CONFIG_NET, "-P", `${world.folder}/pid`, "--netns", name];
    const guest = await world.bed.startGuest([], {
      unconfigured: true,
      options: [...own, ...options],
    });
    const [, engine] = [await untilServed(name), await pidIn(`${world.folder}/pid`)];
    const seen = [engine === guest.pid ? "in the foreground" : "in the background"];
    await must(["ip", "netns", "del", name]);
    const gone = () => !world.bed.engineProcesses().some(({ pid }) => pid === engine);
    if (options.includes("--no-netns-quit")) await sleep(STAYS_MS);
    else await until(gone);
    seen.push(gone() ? "ends" : "stays");
    killHard(engine);
    await until(gone);
    await taken(`${world.folder}/pid`);
    return `${seen.join("\n")}\n`;
  });
}

async function pidIn(file: string): Promise<number> {
  let number = 0;
  await until(async () => {
    number = Number(await Deno.readTextFile(file).catch(() => ""));
    return number > 0;
  });
  return number;
}

/** What the program prints for a question about itself. */
export async function printed(world: World, options: readonly string[]): Promise<string> {
  const { stdout } = await world.guest(["echo", "command"], [QUIET, ...options]);
  return stdout;
}
