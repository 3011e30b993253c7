// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The program as three pieces of JavaScript.
 *
 * Theory of operation: reading 150 modules takes the runtime longer than everything else at a start, and
 * the process that only waits for one in the background does with a tenth of them (`main.ts`). So there are:
 *
 * - `shared`: the modules that both need;
 * - `front`: `main.ts`;
 * - `rest`: everything that is named by a variable, `import(NAME)`, and all behind it.
 *
 * esbuild, from the npm registry, does the work in a copy of the sources, in which `import(NAME)` has become
 * `tubettiPart("path")`, a function that the pieces are given by who runs them. What it makes are modules
 * with one `import` and one `export`; they are turned into bodies of functions, because the runtime
 * parses a module twice, once for what it imports, and a function once. That is right as long as no
 * exported variable changes and no module runs before one that it needs: `shared` imports nothing, and
 * {@linkcode bundle} refuses what looks otherwise. Nothing depends on where or when it runs.
 *
 * @module
 */
import { runDeno } from "./settings.ts";

/**
 * What makes one file of many, from the npm registry. It is all that is fetched, and `deno.lock` has its hash and those
 * of its executables, one for each machine. (`deno.json` has `"lock": false`, because `deno task` fetches what is
 * in a lock before it does anything: the program could not be started without the registry.) Another
 * version: remove the file, and `deno run --no-config --lock=deno.lock npm:esbuild@VERSION --version`.
 */
const BUNDLER = "npm:esbuild@0.25.12";
const PROJECT = new URL("../../", import.meta.url);
const LOCK = new URL("deno.lock", PROJECT).pathname;
/** The function that gives a module of `rest` by its path. */
export const PART = "tubettiPart";
/** The constant that has what `shared` exports. */
export const SHARED = "$shared";

/** The pieces: bodies of asynchronous functions. */
export interface Bundle {
  /** Returns what it exports. */
  readonly shared: string;
  /** Wants {@linkcode SHARED} and {@linkcode PART}. Runs the program. */
  readonly front: string;
  /** Wants {@linkcode SHARED} and {@linkcode PART}. Returns, as `default`, its modules by path. */
  readonly rest: string;
  /** Paths of the sources that are in it, sorted. */
  readonly sources: readonly string[];
}

/**
 * A source in which modules named by variables are asked for by their paths.
 *
 * @param path of the source, relative to the project
 * @param parts gets the paths of those modules
 * @throws Error when a variable is no constant of the same file
 *
 * @example
 * ```ts
 * import { withParts } from "./bundle.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const parts = new Set<string>();
 * const source = 'const TEXT = "./text.ts"; await import(TEXT);';
 * assertEquals(
 *   withParts("lib/main.ts", source, parts),
 *   'const TEXT = "./text.ts"; await tubettiPart("lib/text.ts");',
 * );
 * assertEquals([...parts], ["lib/text.ts"]);
 * ```
 */
export function withParts(path: string, source: string, parts: Set<string>): string {
  return source.replace(/\bimport\((\w+)\)/g, (_, name) => {
    const target = new RegExp(`\\b${name} = "([^"]+)"`).exec(source)?.[1];
    if (target === undefined) throw new Error(`${path}: import(${name}): ${name} is no constant`);
    const part = new URL(target, `file:///${path}`).pathname.slice(1);
    parts.add(part);
    return `${PART}(${JSON.stringify(part)})`;
  });
}

/** Paths of the sources below a folder, relative to the project. */
function* sourcesIn(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, PROJECT))) {
    if (isDirectory) yield* sourcesIn(`${folder}${name}/`);
    else if (name.endsWith(".ts")) yield `${folder}${name}`;
  }
}

/** Copies the sources, changed as said above, and adds `rest.ts`. */
function copySources(to: string, imports: Record<string, string>, version: string): void {
  const parts = new Set<string>();
  for (const path of ["main.ts", ...sourcesIn("lib/")]) {
    const source = Deno.readTextFileSync(new URL(path, PROJECT));
    if (/^export (let|var) /m.test(source)) throw new Error(`${path}: exports a variable`);
    const text = withParts(path, source, parts);
    Deno.mkdirSync(`${to}/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    Deno.writeTextFileSync(`${to}/${path}`, text);
  }
  const paths = [...parts].sort();
  const lines = paths.map((path, i) => `import * as part${i} from "./${path}";`);
  const fields = paths.map((path, i) => `${JSON.stringify(path)}: part${i}`);
  Deno.writeTextFileSync(`${to}/rest.ts`, `${lines.join("\n")}\nexport default {${fields}};\n`);
  Deno.writeTextFileSync(`${to}/deno.json`, JSON.stringify({ version, imports }));
}

/** Runs the bundler in a folder of sources. @throws Error with what it says */
async function runBundler(folder: string, imports: Record<string, string>): Promise<void> {
  const isolated = ["--no-config", `--lock=${LOCK}`, "--frozen", "--node-modules-dir=none"];
  const options = {
    platform: "neutral",
    format: "esm",
    target: "esnext",
    "chunk-names": "shared",
    "legal-comments": "none",
    "log-level": "error",
    "define:import.meta.main": "true",
    outdir: "out",
    metafile: "meta.json",
  };
  const args = [
    ...["run", "--quiet", "--no-prompt", "--allow-all", ...isolated, BUNDLER],
    ...["front=main.ts", "rest=rest.ts", "--bundle", "--splitting"],
    ...["--minify-whitespace", "--minify-syntax"],
    ...Object.entries(options).map(([name, value]) => `--${name}=${value}`),
    ...Object.entries(imports).map(([name, path]) => `--alias:${name}=${path}`),
  ];
  const failure = await runDeno(args, folder);
  if (failure === null) return;
  const [message] = failure.split("\n\nStack backtrace:");
  throw new Error(`${BUNDLER}: ${message!.trim()}`);
}

/** `a as b` as the names of an object's fields. */
function fields(names: string, exported: boolean): string {
  return names.replace(/([\w$]+) as ([\w$]+)/g, exported ? "$2:$1" : "$1:$2");
}

/**
 * The body of a function that does what a module does.
 *
 * Files that are not part of the program may be imported by an expression.
 *
 * @throws Error when the module imports something but `./shared.js`, or in other forms
 * @example
 * ```ts
 * import { bodyOf } from "./bundle.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(
 *   bodyOf('import{a as b}from"./shared.js";var c=b;export{c as d};'),
 *   '"use strict";const{a:b}=$shared;var c=b;return{d:c};',
 * );
 * ```
 */
export function bodyOf(module: string): string {
  const body = module.trimEnd()
    .replace(
      /^import\{([^}]*)\}from"\.\/shared\.js";/,
      (_, names) => `const{${fields(names, false)}}=${SHARED};`,
    )
    .replace(/export\{([^}]*)\};$/, (_, names) => `return{${fields(names, true)}};`);
  const left = /(?:^|[;}])(?:import|export)\b[^;]{0,60}|\bimport\(["'][^;]{0,60}/.exec(body)?.[0];
  if (left) throw new Error(`Bundle: cannot be a function: ${left}`);
  return `"use strict";${body}`;
}

/**
 * Bundles the program. Reads the sources, writes to a folder of its own.
 *
 * @throws Error when the bundler cannot be had, or refuses
 */
export async function bundle(): Promise<Bundle> {
  const { imports, version } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", PROJECT)),
  ) as { imports: Record<string, string>; version: string };
  const folder = await Deno.makeTempDir({ prefix: "tubetti-bundle-" });
  try {
    copySources(folder, imports, version);
    await runBundler(folder, imports);
    const { inputs } = JSON.parse(await Deno.readTextFile(`${folder}/meta.json`));
    const piece = async (name: string) =>
      bodyOf(await Deno.readTextFile(`${folder}/out/${name}.js`));
    return {
      shared: await piece("shared"),
      front: await piece("front"),
      rest: await piece("rest"),
      sources: Object.keys(inputs).filter((path) => path !== "rest.ts").sort(),
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
