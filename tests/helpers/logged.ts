// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the program logs while a test does something.
 *
 * @module
 */
import { BaseHandler, getLogger } from "@std/log";

/** Messages that are logged while `work` runs, without their levels. */
export function logged(work: () => void): string[] {
  const logger = getLogger(), said: string[] = [], { handlers } = logger;
  class Kept extends BaseHandler {
    override handle({ msg }: { msg: string }): void {
      said.push(msg);
    }
    override log(): void {}
  }
  logger.handlers = [new Kept("NOTSET")];
  try {
    work();
  } finally {
    logger.handlers = handlers;
  }
  return said;
}
