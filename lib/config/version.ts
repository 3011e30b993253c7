// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The program's name, version and licence.
 *
 * @module
 */
import configuration from "../../deno.json" with { type: "json" };

/** Name and version, one line. */
export const VERSION = `tubetti ${configuration.version}`;

/** What may be done with the program, one line. */
export const LICENCE =
  "Licence GPL-2.0-or-later <https://www.gnu.org/licenses/old-licenses/gpl-2.0.html>, no warranty";

/** What `--version` prints, without the last newline. */
export const VERSION_TEXT = `${VERSION}\n${LICENCE}`;
