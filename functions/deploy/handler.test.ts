import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEvent, type Event, type EventData } from '../../shared/events.ts';
import { invoke } from '../../shared/function/testing.ts';
import { readChampion } from '../../shared/stores/models.ts';
import { type TestStores, testStores } from '../../shared/stores/testing.ts';
import { storeDrawnDataset, storeDrawnModel } from '../../shared/stores/testing-models.ts';
import * as deploy from './handler.ts';

let stores: TestStores;
let approved: EventData<'dev.dandelion.model.approved.v1'>;

beforeAll(async () => {
  stores = await testStores();
  const classes = { dandelion: 12, grass: 12 };
  const { dataset } = await storeDrawnDataset(stores, { model: 'plants', ingestion: 'i1', classes });
  const first = await storeDrawnModel(stores, { name: 'plants', version: 'v0000000001', dataset });
  await storeDrawnModel(stores, { name: 'plants', version: 'v0000000002', dataset });
  const model = { name: 'plants', version: 'v0000000001' };
  approved = { model, dataset, checks: [], metrics: first.metrics, champion: null };
});
afterAll(() => stores.drop());

let events = 0;

function deployVersion(version: string, id = `e${++events}`) {
  const data = { ...approved, model: { name: 'plants', version } };
  const event = createEvent({ type: 'dev.dandelion.model.approved.v1', source: '/test', id, data });
  return invoke(deploy, { name: 'deploy', event, env: stores.env });
}

function rollBack(data: { model?: string; version?: string }) {
  const type = 'dev.dandelion.rollback.requested.v1';
  const full = { model: 'plants', reason: 'test', ...data };
  const event = createEvent({ type, source: '/test', id: `e${++events}`, data: full });
  return invoke(deploy, { name: 'deploy', event, env: stores.env });
}

const withoutTrace = ({ traceparent: _trace, ...notice }: Event) => notice;
const champion = async () => (await readChampion(stores.objects, 'plants'))?.champion;

describe('deploy', () => {
  it('makes the approved model the champion and remembers who it followed', async () => {
    const first = await deployVersion('v0000000001');
    expect(first.event).toMatchObject({ type: 'dev.dandelion.model.deployed.v1', data: { previous: null } });
    const second = await deployVersion('v0000000002');
    expect(second.event?.data).toMatchObject({ previous: 'v0000000001' });
    expect(await champion()).toMatchObject({ version: 'v0000000002', previous: 'v0000000001' });
  });

  it('changes nothing when the same approval comes again', async () => {
    const before = await champion();
    await deployVersion('v0000000002');
    expect(await champion()).toEqual(before);
  });

  it('answers the same event again from what it did, without doing it again', async () => {
    const first = await deployVersion('v0000000002', 'again');
    const again = await deployVersion('v0000000002', 'again');
    expect(again.event).toEqual({
      ...first.event,
      time: again.event?.time,
      traceparent: again.event?.traceparent,
    });
    expect(first.notices.map(({ data }) => data)).toContainEqual(
      expect.objectContaining({ phase: 'champion', decision: 'promoted' }),
    );
    // Told again under the same ids and times, in case the first telling was cut off.
    expect(again.notices.map(withoutTrace)).toEqual(first.notices.map(withoutTrace));
  });

  it('goes back to the version before, and says what was taken back', async () => {
    const back = await rollBack({});
    expect(back.event).toMatchObject({
      type: 'dev.dandelion.model.rolledback.v1',
      data: { model: { version: 'v0000000002' }, previous: 'v0000000001', phase: 'requested' },
    });
    expect(await champion()).toMatchObject({ version: 'v0000000001', previous: 'v0000000002' });
    await rollBack({ version: 'v0000000002' });
    expect(await champion()).toMatchObject({ version: 'v0000000002' });
  });

  it('refuses to go back to a version that is not there', async () => {
    const refused = await rollBack({ version: 'v00000000ff' });
    expect(refused.problem).toMatchObject({ code: 'nothing-to-roll-back', status: 422 });
    const none = await rollBack({ model: 'nobody' });
    expect(none.problem).toMatchObject({ code: 'nothing-to-roll-back', status: 422 });
  });

  it('leaves the champion alone when the model cannot be loaded', async () => {
    const before = await champion();
    await stores.objects.put('models/plants/v0000000001/head.bin', Buffer.from('not a head'));
    const broken = await deployVersion('v0000000001');
    expect(broken.problem).toMatchObject({ code: 'model-broken', status: 503 });
    const unknown = await deployVersion('v00000000ff');
    expect(unknown.problem).toMatchObject({ code: 'model-broken', status: 503 });
    expect(await champion()).toEqual(before);
  });
});
