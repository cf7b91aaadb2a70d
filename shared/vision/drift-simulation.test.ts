import { expect, it } from 'vitest';
import { simulateDrift } from './drift-simulation.ts';

it('cries wolf no oftener than stated, and sees what changes drawn photos', async () => {
  const options = { training: 100, pool: 130, window: 80, rounds: 40, models: 2, level: 0.05, seed: 3 };
  const alarms = await simulateDrift(options);
  const rate = ({ windows, alarms: told }: { windows: number; alarms: number }) => told / windows;
  // Three standard errors above 5 % of 80 windows.
  expect(rate(alarms.none)).toBeLessThan(0.125);
  for (const shift of ['darker', 'blurred', 'class mix', 'new object'] as const) {
    expect([shift, rate(alarms[shift]) >= 0.8]).toEqual([shift, true]);
  }
});
