import { z } from 'zod';
import { DandelionError } from '../errors.ts';

const problem = z.object({ code: z.string(), detail: z.string() });

/**
 * Asks a function of a platform or a cluster by HTTP, with DANDELION_TOKEN where it is set.
 *
 * @throws DandelionError `upstream-unavailable` when nothing answers or it fails, `bad-request` with what it says when it
 * refuses
 */
export async function askFunction(
  url: string,
  { method = 'GET', body }: { method?: 'GET' | 'POST'; body?: unknown } = {},
): Promise<Response> {
  const token = process.env.DANDELION_TOKEN;
  const headers: Record<string, string> = {
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
  };
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(url, { method, headers, ...sent }).catch((cause: unknown) => {
    throw new DandelionError(
      'upstream-unavailable',
      `Nothing answers at ${url}: start the platform with npm start, or name the function's address with --url.`,
      { cause },
    );
  });
  if (response.ok) return response;
  const fault = problem.safeParse(await response.json().catch(() => undefined));
  throw new DandelionError(
    response.status >= 500 ? 'upstream-unavailable' : 'bad-request',
    fault.success ? fault.data.detail : `${url} answered ${response.status}.`,
  );
}

/** As {@link askFunction}, for an answer in JSON. */
export async function askJson<Schema extends z.ZodType>(
  schema: Schema,
  url: string,
  request?: Parameters<typeof askFunction>[1],
): Promise<z.output<Schema>> {
  const response = await askFunction(url, request);
  return schema.parse(await response.json());
}
