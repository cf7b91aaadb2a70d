/**
 * `npm run dead-letters`: lists, shows and sends again the events that nobody took, by monitor's HTTP interface.
 */
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../errors.ts';
import { askJson } from './ask.ts';
import { askService, openKubernetesApi } from './kubernetes-api.ts';

const usage = `npm run dead-letters                        the events that wait here, the latest first
npm run dead-letters -- show ID             one of them, with its event
npm run dead-letters -- replay ID [ID ...]  sends them to the broker again, once the cause is mended
npm run dead-letters -- replay --every      the same for every one that waits

  --all        lists those too that were sent again and did not come back
  --url URL    address of monitor; default http://localhost:8080/function/monitor of npm start
  --cluster    those of the cluster that KUBECONFIG names, by its API
  --namespace NAME   there; default: the context's own, else dandelion
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

const options = {
  url: { type: 'string', default: 'http://localhost:8080/function/monitor' },
  cluster: { type: 'boolean', default: false },
  namespace: { type: 'string' },
  all: { type: 'boolean', default: false },
  every: { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

function line({ id, event, destination, status, cause, occurrences, lastAt }: Letter): string {
  const often = occurrences > 1 ? `, ${occurrences} times` : '';
  return `${id}  ${lastAt}${often}\n  ${event.type} ${event.id} -> ${destination} (${status ?? 'no answer'})\n  ${cause}`;
}

/** Asks monitor for what is below `/dead-letters`. */
type Ask = <Schema extends z.ZodType>(
  schema: Schema,
  path: string,
  method?: 'GET' | 'POST',
) => Promise<z.output<Schema>>;

function askAt(url: string): Ask {
  return (schema, path, method = 'GET') => askJson(schema, `${url}/dead-letters${path}`, { method });
}

async function openMonitor(given: string | undefined): Promise<Ask> {
  const api = await openKubernetesApi();
  const monitor = { namespace: given ?? api.namespace ?? 'dandelion', name: 'monitor' };
  return async (schema, path, method) => {
    const request = { path: `/dead-letters${path}`, ...(method && { method }) };
    const { status, text } = await askService(api, monitor, request);
    if (status === 200) return schema.parse(JSON.parse(text));
    throw new DandelionError('bad-request', `monitor answered ${status}: ${text.slice(0, 300)}`);
  };
}

async function run(words: string[]): Promise<void> {
  const { values, positionals } = parseArgs({ args: words, options, allowPositionals: true });
  const [action = 'list', ...ids] = positionals;
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  if (values.help) return say(usage);
  const ask = values.cluster ? await openMonitor(values.namespace) : askAt(values.url.replace(/\/$/, ''));
  const list = (all: boolean) => ask(letters, `?all=${all}&limit=1000`);
  if (action === 'list') {
    const { deadLetters } = await list(values.all);
    if (values.json) return say(JSON.stringify(deadLetters, null, 2));
    return say(deadLetters.length === 0 ? 'There are no dead letters.' : deadLetters.map(line).join('\n'));
  }
  if (action === 'show' && ids.length === 1) {
    return say(JSON.stringify(await ask(letter, `/${encodeURIComponent(ids[0] ?? '')}`), null, 2));
  }
  if (action === 'replay' && (ids.length > 0 || values.every)) {
    const wanted = values.every ? (await list(false)).deadLetters.map(({ id }) => id) : ids;
    for (const id of wanted) {
      const { event } = await ask(letter, `/${encodeURIComponent(id)}/replay`, 'POST');
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
