import { resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type KibanaDefinitions, readDefinitions } from './definitions.ts';
import { importIntoKibana } from './import.ts';
import { type KibanaServer, startKibana } from './testing-kibana.ts';

let kibana: KibanaServer;
let definitions: KibanaDefinitions;

beforeEach(async () => {
  definitions = await readDefinitions(resolve(import.meta.dirname, '../../../knative/kibana'));
  kibana = await startKibana();
});
afterEach(() => kibana.close());

const importAll = () => importIntoKibana({ url: kibana.url }, definitions, 0);

describe('an import into Kibana', () => {
  it('brings everything, and brings it again in its place', async () => {
    const expected = { objects: definitions.dashboards.length + 3, rules: definitions.rules.length };
    expect(await importAll()).toEqual(expected);
    const brought = [new Map(kibana.objects), new Map(kibana.rules)];
    expect(await importAll()).toEqual(expected);
    expect([kibana.objects, kibana.rules]).toEqual(brought);
    const methods = kibana.calls.filter(({ path }) => path.includes('/rule/')).map(({ method }) => method);
    expect(methods.filter((method) => method === 'POST')).toHaveLength(expected.rules);
    expect(methods.filter((method) => method === 'PUT')).toHaveLength(expected.rules);
  });

  it('keeps the actions that someone added to a rule, and whether it is switched on', async () => {
    await importAll();
    const [id = '', rule] = [...kibana.rules][0] ?? [];
    if (rule === undefined) throw new Error('no rule');
    const actions = [
      {
        ...{ id: 'a-connector', group: 'query matched', params: { message: 'look' }, uuid: 'u1' },
        frequency: { summary: true, notify_when: 'onThrottleInterval', throttle: '1d' },
      },
    ];
    kibana.rules.set(id, { ...rule, name: 'renamed', enabled: false, actions });
    await importAll();
    expect(kibana.rules.get(id)).toEqual({ ...rule, enabled: false, actions });
  });

  it('says what is wrong, and how to mend it', async () => {
    kibana.status = 403;
    await expect(importAll()).rejects.toMatchObject({
      code: 'store-forbidden',
      message: expect.stringContaining('KIBANA_API_KEY'),
    });
    kibana.status = 503;
    await expect(importAll()).rejects.toMatchObject({ code: 'store-unavailable' });
    await expect(importIntoKibana({ url: 'http://127.0.0.1:1' }, definitions, 0)).rejects.toMatchObject({
      message: expect.stringContaining('KIBANA_URL'),
    });
  });
});
