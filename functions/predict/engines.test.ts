import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { ServedModel, ServingGraph } from '../../shared/stores/served-model.ts';
import { createEngines, type EngineThread } from './engines.ts';

const log = pino({ level: 'silent' });
const pixels = Uint8Array.of(1, 2, 3);
const graph: ServingGraph = { bytes: Uint8Array.of(4, 5, 6), optimised: false };
const answerOf = (number: number) => ({ scores: Float32Array.of(number), sketch: new Float32Array() });
const settle = () => new Promise((resolve) => setTimeout(resolve, 10));

/** Engines whose answers name who gave them: -1 the main thread, else the number of the thread. */
function testEngines(options: { threads?: number; openFails?: () => boolean } = {}) {
  const served = {
    graph,
    answer: async () => answerOf(-1),
    close: async () => {
      closed.push(-1);
    },
  } as unknown as ServedModel;
  const closed: number[] = [];
  const broken = new Set<number>();
  let started = 0;
  const startThread = async (given: ServingGraph): Promise<EngineThread> => {
    if (options.openFails?.() === true) throw new Error('no memory');
    expect(given).toBe(graph);
    const number = started++;
    return {
      async answer() {
        await settle();
        if (broken.has(number)) throw new Error('the thread died');
        return answerOf(number);
      },
      async close() {
        closed.push(number);
      },
    };
  };
  const engines = createEngines(served, { threads: options.threads ?? 2, startThread, log });
  const ask = async (alone: boolean) => (await engines.answer(pixels, () => alone)).scores[0];
  return { engines, ask, closed, broken, started: () => started };
}

describe('engines', () => {
  it('answer a lone photo on the main thread, without opening others', async () => {
    const { ask, started } = testEngines();
    expect(await ask(true)).toBe(-1);
    expect(started()).toBe(0);
  });

  it('open threads when photos come together, and share the photos out', async () => {
    const { ask } = testEngines();
    expect(await ask(false)).toBe(-1);
    await settle();
    expect((await Promise.all([ask(false), ask(false), ask(false), ask(false)])).sort()).toEqual([
      0, 0, 1, 1,
    ]);
    expect(await ask(true)).toBe(-1);
  });

  it('never open threads where one is all there is', async () => {
    const { ask, started } = testEngines({ threads: 1 });
    await ask(false);
    await settle();
    expect([await ask(false), started()]).toEqual([-1, 0]);
  });

  it('lose no photo when a thread dies, and go on with the other', async () => {
    const { ask, broken, closed } = testEngines();
    await ask(false);
    await settle();
    broken.add(0);
    expect((await Promise.all([ask(false), ask(false)])).sort()).toEqual([-1, 1]);
    expect(closed).toEqual([0]);
    expect(await Promise.all([ask(false), ask(false)])).toEqual([1, 1]);
  });

  it('go on with the main thread when threads cannot be opened', async () => {
    const { ask, engines, closed } = testEngines({ openFails: () => true });
    expect([await ask(false), await ask(false)]).toEqual([-1, -1]);
    await engines.close();
    expect(closed).toEqual([-1]);
  });

  it('close all that was opened', async () => {
    const { ask, engines, closed } = testEngines();
    await ask(false);
    await engines.close();
    expect(closed.sort()).toEqual([-1, 0, 1]);
  });
});
