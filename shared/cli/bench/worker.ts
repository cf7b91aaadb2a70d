import { fork } from 'node:child_process';
import { once } from 'node:events';
import { z } from 'zod';
import { DandelionError } from '../../errors.ts';

/** A process that works on one question after another, so that what is measured shares no event loop. */
export interface Worker {
  /** @throws DandelionError `internal` with the process's error */
  ask<Answer extends z.ZodType>(question: unknown, answer: Answer): Promise<z.output<Answer>>;
  processId: number;
  close(): Promise<void>;
}

const reply = z.union([z.object({ answer: z.unknown() }), z.object({ fault: z.string() })]);
const asked = z.object({ question: z.unknown() });

/** Starts a script of this folder that calls {@link answerQuestions}; it ends when this process does. */
export function startWorker(script: string): Worker {
  const child = fork(`${import.meta.dirname}/${script}`, {
    serialization: 'advanced',
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const gone = once(child, 'exit').then(([code]) => ({ fault: `it ended with ${code}` }));
  return {
    processId: child.pid ?? 0,
    async ask(question, answer) {
      const next = once(child, 'message').then(([message]) => reply.parse(message));
      child.send({ question });
      const received = await Promise.race([next, gone]);
      if ('fault' in received) throw new DandelionError('internal', `${script}: ${received.fault}`);
      return answer.parse(received.answer);
    },
    async close() {
      if (child.connected) child.disconnect();
      await gone;
    },
  };
}

/** The other end of {@link startWorker}: answers each question, and leaves when the parent does. */
export function answerQuestions<Question extends z.ZodType>(
  question: Question,
  work: (question: z.output<Question>) => Promise<unknown>,
): void {
  process.on('message', async (message) => {
    try {
      process.send?.({ answer: await work(question.parse(asked.parse(message).question)) });
    } catch (error) {
      process.send?.({ fault: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    }
  });
  process.on('disconnect', () => process.exit(0));
}
