import { expect, it } from 'vitest';
import { z } from 'zod';
import { schemaFaults } from './schema-faults.ts';

it('names each wrong field by its path, and the whole by its name', () => {
  const schema = z.object({ model: z.object({ name: z.string() }), shares: z.array(z.number()) });
  const faultsOf = (value: unknown) => {
    const { error } = schema.safeParse(value);
    return error === undefined ? '' : schemaFaults(error, 'request');
  };
  expect(faultsOf({ model: {}, shares: [1, 'x'] })).toMatch(/^model\.name: .+; shares\.1: .+$/);
  expect(faultsOf(7)).toMatch(/^request: /);
});
