import type { z } from 'zod';

/**
 * What does not fit a schema, for a message: each wrong field and why.
 *
 * @param whole stands where the value as a whole is wrong
 */
export function schemaFaults({ issues }: z.ZodError, whole = 'data'): string {
  return issues.map(({ path, message }) => `${path.join('.') || whole}: ${message}`).join('; ');
}
