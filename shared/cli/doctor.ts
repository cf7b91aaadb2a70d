/**
 * `npm run doctor`: looks at this machine and at every service that the environment names.
 */
import { resolve } from 'node:path';
import { parseArgs, styleText } from 'node:util';
import { DandelionError, toDandelionError } from '../errors.ts';
import { examine, type NamedFinding } from './doctor/examination.ts';
import { readDoctorSettings } from './doctor/settings.ts';

const usage = `npm run doctor   says of each service: version, latency, what is missing and the cure

  --data DIR   where npm start keeps everything (default .data)
  --json       as JSON
Exit codes: 0 all is well, 1 something that is configured fails, 2 the settings are wrong.`;

const options = {
  data: { type: 'string', default: '.data' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

const colours = { ok: 'green', trouble: 'red', 'not configured': 'gray' } as const;

function line({ name, status, version, latencyMs, detail, code }: NamedFinding): string {
  const word = styleText(colours[status], status.padEnd(14), { stream: process.stdout });
  const facts = [version, latencyMs === undefined ? undefined : `${latencyMs} ms`].filter(Boolean).join(', ');
  const before = facts === '' ? '' : `${facts}; `;
  return `${name.padEnd(15)} ${word} ${before}${detail}${code === undefined ? '' : ` [${code}]`}\n`;
}

/** @returns the exit code */
async function run(words: string[]): Promise<number> {
  const { values } = parse(words);
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  // As npm start: what is typed is relative to where it was typed.
  const base = values.data === options.data.default ? '.' : process.env.INIT_CWD || '.';
  const settings = readDoctorSettings(resolve(base, values.data), process.env);
  const found: NamedFinding[] = [];
  for await (const finding of examine(settings)) {
    found.push(finding);
    if (!values.json) process.stdout.write(line(finding));
  }
  const ok = found.every(({ status }) => status !== 'trouble');
  if (values.json) process.stdout.write(`${JSON.stringify({ ok, checks: found }, null, 2)}\n`);
  return ok ? 0 : 1;
}

function parse(words: string[]) {
  try {
    return parseArgs({ args: words, options });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DandelionError('bad-config', `${why}\n\n${usage}`, { cause });
  }
}

let exitCode = 1;
try {
  exitCode = await run(process.argv.slice(2));
} catch (error) {
  const { code, message } = toDandelionError(error);
  process.stderr.write(`${message}\n`);
  exitCode = code === 'bad-config' ? 2 : 1;
}
// A server that took too long may still hold a connection open.
process.stdout.write('', () => process.exit(exitCode));
