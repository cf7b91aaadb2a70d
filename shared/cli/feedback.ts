/**
 * `npm run feedback`: shows what people said about answers and settles it, by the feedback function's HTTP interface.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { DandelionError, toDandelionError } from '../errors.ts';
import { percent } from '../percent.ts';
import { askFunction, askJson } from './ask.ts';

const usage = `npm run feedback                              what waits for a review, the earliest first
npm run feedback -- photo ID FILE             writes its photo into a file
npm run feedback -- accept ID [ID ...]        it counts, and its photo joins the next dataset
npm run feedback -- reject ID [ID ...]        it does not, and its photo is deleted
npm run feedback -- reject --client HASH      the same for everything that waits from one client
npm run feedback -- accuracy                  how often each version was right, by reviewed feedback

  --label LABEL  accepts it as this, whatever was said; --none: as none of the classes
  --url URL      address of the function; default http://localhost:8080/function/feedback of npm start
  --json         as JSON
DANDELION_TOKEN is sent where it is set.`;

const item = z.looseObject({
  id: z.string(),
  client: z.string(),
  model: z.string(),
  version: z.string(),
  predicted: z.string(),
  label: z.string().nullable(),
  photo: z.looseObject({ width: z.number(), height: z.number() }).nullable(),
  logged: z.object({ version: z.string(), label: z.string() }).nullable(),
  givenAt: z.string(),
});
type Item = z.infer<typeof item>;
const list = z.object({ total: z.number(), feedback: z.array(item) });
const accuracy = z.object({
  model: z.string(),
  versions: z.array(
    z.object({
      version: z.string(),
      reviewed: z.number(),
      correct: z.number(),
      accuracy: z.number(),
      interval: z.tuple([z.number(), z.number()]),
    }),
  ),
});

const options = {
  url: { type: 'string', default: 'http://localhost:8080/function/feedback' },
  label: { type: 'string' },
  none: { type: 'boolean', default: false },
  client: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function line({ id, client, model, version, predicted, label, photo, logged, givenAt }: Item): string {
  const said = label === predicted ? 'right' : `wrong: ${label ?? 'none of the classes'}`;
  const picture = photo === null ? 'no photo' : `photo ${photo.width} x ${photo.height}`;
  const doubt = logged === null ? ', not in the prediction log' : '';
  const from = client === '' ? '' : `, client ${client}`;
  return `${id}  ${givenAt}\n  ${model} ${version} said ${predicted}; ${said}\n  ${picture}${from}${doubt}`;
}

async function showWaiting(reviews: string, asJson: boolean): Promise<void> {
  const waiting = await askJson(list, `${reviews}?limit=1000`);
  if (asJson) return say(JSON.stringify(waiting, null, 2));
  if (waiting.total === 0) return say('No feedback waits for a review.');
  say(waiting.feedback.map(line).join('\n'));
  if (waiting.total > waiting.feedback.length) say(`... and ${waiting.total - waiting.feedback.length} more`);
}

async function showAccuracy(url: string, asJson: boolean): Promise<void> {
  const { model, versions } = await askJson(accuracy, `${url}/accuracy`);
  if (asJson) return say(JSON.stringify({ model, versions }, null, 2));
  if (versions.length === 0) return say('No feedback was reviewed yet.');
  for (const { version, reviewed, correct, accuracy: share, interval } of versions) {
    const [low, high] = interval.map(percent);
    say(`${model} ${version}  ${percent(share)} (${low} to ${high}), ${correct} of ${reviewed} right`);
  }
}

/** Settles feedback as it is now: what its sender changes meanwhile waits on. */
async function settle(reviews: string, action: string, ids: string[], label?: string | null): Promise<void> {
  for (const id of ids) {
    const url = `${reviews}/${encodeURIComponent(id)}`;
    const { givenAt } = await askJson(item, url);
    const body = label === undefined ? { givenAt } : { givenAt, label };
    await askFunction(`${url}/${action}`, { method: 'POST', body });
    say(`${id} ${action}ed`);
  }
}

async function run(words: string[]): Promise<void> {
  const { values, positionals } = parseArgs({ args: words, options, allowPositionals: true });
  const [action = 'list', ...ids] = positionals;
  if (values.help) return say(usage);
  const url = values.url.replace(/\/$/, '');
  const reviews = `${url}/reviews`;
  if (action === 'list') return showWaiting(reviews, values.json);
  if (action === 'accuracy') return showAccuracy(url, values.json);
  if (action === 'photo' && ids.length === 2) {
    const [id = '', file = ''] = ids;
    const response = await askFunction(`${reviews}/${encodeURIComponent(id)}/photo`);
    return writeFile(file, Buffer.from(await response.arrayBuffer()));
  }
  if (action === 'accept' && ids.length > 0) {
    return settle(reviews, action, ids, values.none ? null : values.label);
  }
  if (action === 'reject' && values.client !== undefined) {
    const query = `?limit=1000&client=${encodeURIComponent(values.client)}`;
    const { feedback } = await askJson(list, `${reviews}${query}`);
    return settle(
      reviews,
      action,
      feedback.map(({ id }) => id),
    );
  }
  if (action === 'reject' && ids.length > 0) return settle(reviews, action, ids);
  throw new DandelionError('bad-config', `That is not understood.\n\n${usage}`);
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${toDandelionError(error).message}\n`);
  process.exitCode = error instanceof DandelionError && error.code === 'upstream-unavailable' ? 1 : 2;
}
