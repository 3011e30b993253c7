// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task manual`: writes the manual page, `tubetti.1`, from the option table.
 *
 * @module
 */
import { manualPage } from "../lib/config/manual.ts";

await Deno.writeTextFile(new URL("../tubetti.1", import.meta.url), manualPage());
