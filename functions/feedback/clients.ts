import { createHmac } from 'node:crypto';

/** Stands for a client in the database; empty without a key, since the hash of an address alone is easily undone. */
export function clientHash(client: string, salt: string | undefined): string {
  if (salt === undefined || client === '') return '';
  return createHmac('sha256', salt).update(client).digest('hex').slice(0, 16);
}
