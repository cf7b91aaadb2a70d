import { z } from 'zod';
import { list } from '../config.ts';
import { DandelionError } from '../errors.ts';
import type { Processes } from './processes.ts';

const nameAndUrl = /^([a-z][a-z0-9-]{0,39})=(https?:\/\/[^\s=]+?)\/?$/;

/** `ingest=http://ingest:8080,predict=http://predict:8080`: functions that somebody else starts, and where they are. */
export const functionUrls = list.transform((entries, context) => {
  const urls = new Map<string, string>();
  for (const entry of entries) {
    const [, name, url] = nameAndUrl.exec(entry) ?? [];
    if (name === undefined || url === undefined || !URL.canParse(url)) {
      context.addIssue({
        code: 'custom',
        message: `"${entry}" is not name=address, as ingest=http://ingest:8080`,
      });
      return z.NEVER;
    }
    urls.set(name, url);
  }
  return urls;
});

/** Functions that run elsewhere (containers of their own): nothing is started or stopped here, only addressed. */
export function addressFunctions(urls: ReadonlyMap<string, string>): Processes {
  const names = [...urls.keys()].sort();
  return {
    names: async () => names,
    async acquire(name) {
      const url = urls.get(name);
      if (url !== undefined) return { url, release: () => {} };
      throw new DandelionError(
        'not-found',
        `There is no function "${name}"; FUNCTION_URLS names: ${names.join(', ') || 'none'}.`,
      );
    },
    running: () => [],
    stop: async () => {},
  };
}
