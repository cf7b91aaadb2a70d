import { expect, it } from 'vitest';
import { DandelionError } from '../errors.ts';
import { resultIdOf } from '../events.ts';
import { step, stepEvent } from './fixtures/functions.ts';
import { invoke } from './testing.ts';

it('invokes a step with an event: result event and progress', async () => {
  const event = stepEvent('1');
  const invoked = await invoke(step, { event, name: 'step' });
  expect(invoked).toMatchObject({
    status: 200,
    event: { id: resultIdOf('step', event.source, event.id), source: '/dandelion/functions/step' },
    progress: [
      { done: 1, total: 2, note: 'half way' },
      { done: 2, total: 2 },
    ],
  });
});

it('invokes a plain function with a request, settings and a body', async () => {
  let greeting = '';
  const invoked = await invoke(
    {
      init({ env }) {
        greeting = env.GREETING ?? '';
      },
      handler: (event, context) =>
        context.status(201).succeed({ greeting, got: event.body, path: event.path }),
    },
    { env: { GREETING: 'hello' }, request: { path: '/x', body: { a: 1 } } },
  );
  expect(invoked).toMatchObject({ status: 201, body: { greeting: 'hello', got: { a: 1 }, path: '/x' } });
});

it('shows a failure as the problem a caller would get', async () => {
  const handler = () => {
    throw new DandelionError('not-an-image', 'Send a photo.');
  };
  expect(await invoke({ handler })).toMatchObject({ status: 422, problem: { code: 'not-an-image' } });
});
