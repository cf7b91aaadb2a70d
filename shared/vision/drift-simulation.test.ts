import { expect, it } from 'vitest';
import { type Shift, simulateDrift } from './drift-simulation.ts';

const TIMEOUT_MS = 180_000;

it(
  // New objects are not in the list: of 30 % of them in a window this size less than half are told.
  'cries wolf no oftener than stated, and sees photos that are darker, blurred or of another mix',
  async () => {
    const options = { training: 100, window: 80, models: 25, level: 0.05, seed: 3 };
    const alarms = await simulateDrift(options);
    const rate = (shift: Shift) => alarms[shift].alarms / alarms[shift].windows;
    expect(rate('none')).toBeLessThan(0.2);
    for (const shift of ['darker', 'blurred', 'class mix'] as const) {
      expect([shift, rate(shift) >= 0.8]).toEqual([shift, true]);
    }
  },
  TIMEOUT_MS,
);
