/**
 * `npm run dead-letters`: lists, shows and sends again the events that nobody took, by monitor's HTTP interface.
 */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../errors.ts';

const usage = `npm run dead-letters                        the events that wait here, the latest first
npm run dead-letters -- show ID             one of them, with its event
npm run dead-letters -- replay ID [ID ...]  sends them to the broker again, once the cause is mended
npm run dead-letters -- replay --every      the same for every one that waits

  --all        lists those too that were sent again and did not come back
  --url URL    address of monitor; default http://localhost:8080/function/monitor of npm start
  --json       as JSON
DANDELION_TOKEN is sent where it is set.`;

const letter = z.looseObject({
  id: z.string(),
  event: z.looseObject({ id: z.string(), type: z.string(), source: z.string() }),
  destination: z.string(),
  status: z.number().nullable(),
  cause: z.string(),
  occurrences: z.number(),
  replays: z.number(),
  lastAt: z.string(),
});
type Letter = z.infer<typeof letter>;
const letters = z.object({ deadLetters: z.array(letter) });
const problem = z.object({ code: z.string(), detail: z.string() });

const options = {
  url: { type: 'string', default: 'http://localhost:8080/function/monitor' },
  all: { type: 'boolean', default: false },
  every: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

async function ask<Schema extends z.ZodType>(
  schema: Schema,
  url: string,
  method: 'GET' | 'POST' = 'GET',
): Promise<z.output<Schema>> {
  const token = process.env.DANDELION_TOKEN;
  const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(url, { method, headers }).catch((cause: unknown) => {
    throw new DandelionError(
      'upstream-unavailable',
      `Nothing answers at ${url}: start the platform with npm start, or name monitor's address with --url.`,
      { cause },
    );
  });
  const answer: unknown = await response.json().catch(() => undefined);
  const fault = problem.safeParse(answer);
  if (response.ok) return schema.parse(answer);
  const why = fault.success ? fault.data.detail : `${url} answered ${response.status}.`;
  throw new DandelionError('bad-request', why);
}

function line({ id, event, destination, status, cause, occurrences, lastAt }: Letter): string {
  const often = occurrences > 1 ? `, ${occurrences} times` : '';
  return `${id}  ${lastAt}${often}\n  ${event.type} ${event.id} -> ${destination} (${status ?? 'no answer'})\n  ${cause}`;
}

async function run(words: string[]): Promise<void> {
  const { values, positionals } = parseArgs({ args: words, options, allowPositionals: true });
  const [action = 'list', ...ids] = positionals;
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  if (values.help) return say(usage);
  const url = `${values.url.replace(/\/$/, '')}/dead-letters`;
  const list = (all: boolean) => ask(letters, `${url}?all=${all}&limit=1000`);
  if (action === 'list') {
    const { deadLetters } = await list(values.all);
    if (values.json) return say(JSON.stringify(deadLetters, null, 2));
    return say(deadLetters.length === 0 ? 'There are no dead letters.' : deadLetters.map(line).join('\n'));
  }
  if (action === 'show' && ids.length === 1) {
    return say(JSON.stringify(await ask(letter, `${url}/${encodeURIComponent(ids[0] ?? '')}`), null, 2));
  }
  if (action === 'replay' && (ids.length > 0 || values.every)) {
    const wanted = values.every ? (await list(false)).deadLetters.map(({ id }) => id) : ids;
    for (const id of wanted) {
      const { event } = await ask(letter, `${url}/${encodeURIComponent(id)}/replay`, 'POST');
      say(`${event.type} ${event.id} is with the broker again`);
    }
    return;
  }
  throw new DandelionError('bad-config', `That is not understood.\n\n${usage}`);
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${toDandelionError(error).message}\n`);
  process.exitCode = error instanceof DandelionError && error.code === 'upstream-unavailable' ? 1 : 2;
}
