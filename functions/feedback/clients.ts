import { createHmac } from 'node:crypto';
import type { FunctionEvent } from '../../shared/function/types.ts';

/** Who asks, as far as a proxy names them; without one all are the same. */
export function clientOf({ headers }: FunctionEvent): string {
  return [headers['x-forwarded-for'] ?? []].flat().join(',').split(',', 1)[0]?.trim() ?? '';
}

/** Stands for a client in the database; empty without a key, since the hash of an address alone is easily undone. */
export function clientHash(client: string, salt: string | undefined): string {
  if (salt === undefined || client === '') return '';
  return createHmac('sha256', salt).update(client).digest('hex').slice(0, 16);
}
