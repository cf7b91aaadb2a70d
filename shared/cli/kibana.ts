/**
 * `npm run kibana`: gives the Kibana at KIBANA_URL dashboards, data views and alert rules, any number of times.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readConfig } from '../config.ts';
import { toDandelionError } from '../errors.ts';
import { readWords, wholeNumber } from './command-line.ts';
import { readDefinitions } from './kibana/definitions.ts';
import { importIntoKibana } from './kibana/import.ts';
import { savedObjects } from './kibana/saved-objects.ts';

const usage = `npm run kibana             imports dashboards, data views and alert rules into the Kibana at KIBANA_URL
npm run kibana -- --print  writes dashboards and data views as NDJSON, for Kibana's own import

  --wait SECONDS  how long Kibana may take to come up; default 0
KIBANA_URL is http(s)://user:password@host:5601, with /s/{space} at its end for a space; KIBANA_API_KEY instead of a password.`;

const options = {
  print: { type: 'boolean', default: false },
  wait: { type: 'string', default: '0' },
  help: { type: 'boolean', default: false },
} as const;

const settings = z.object({
  KIBANA_URL: z.url({
    protocol: /^https?$/,
    error: 'use the address of Kibana, such as http://127.0.0.1:5601',
  }),
  KIBANA_API_KEY: z.string().optional(),
});

/** Beside the bundle when it is built. */
const folders = [join(import.meta.dirname, 'kibana'), join(import.meta.dirname, '../../knative/kibana')];

async function run(words: string[]): Promise<void> {
  const { values } = readWords({ args: words, options, allowPositionals: false });
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  if (values.help) return say(usage);
  const folder = folders.find((place) => existsSync(join(place, 'rules.yaml'))) ?? '';
  const definitions = await readDefinitions(folder);
  if (values.print) {
    return say(
      savedObjects(definitions.dashboards)
        .map((object) => JSON.stringify(object))
        .join('\n'),
    );
  }
  const waitMs = wholeNumber('wait', values.wait, 0) * 1000;
  const { KIBANA_URL: url, KIBANA_API_KEY: apiKey } = readConfig(settings);
  const { objects, rules } = await importIntoKibana({ url, apiKey }, definitions, waitMs);
  say(`Kibana has ${objects} dashboards and data views and ${rules} alert rules of ours.`);
}

/** The entry of the process: 2 for what is wrong with its settings, 1 for anything else. */
export async function start(words = process.argv.slice(2)): Promise<void> {
  try {
    await run(words);
  } catch (thrown) {
    const error = toDandelionError(thrown);
    process.stderr.write(`${error.message}\n`);
    process.exitCode = error.code === 'bad-config' ? 2 : 1;
  }
}

if (import.meta.main) await start();
