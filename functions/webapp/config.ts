import { z } from 'zod';
import { type Environment, readConfig } from '../../shared/config.ts';

/** An address the browser can call: a path on the page's own host, or a whole `http(s)` URL. */
const browserUrl = z
  .string()
  .refine(
    (text) => (text.startsWith('/') && !text.startsWith('//')) || /^https?:\/\/[^/]/.test(text),
    'use a path that starts with "/" or an address that starts with http:// or https://',
  )
  .refine((text) => URL.canParse(text, 'http://page.invalid'), 'this is not an address');

const pageSettings = z.object({
  /** Where the page posts photos. */
  PREDICT_URL: browserUrl.default('/function/predict/'),
  /** Where the page reads the pipeline's state, as JSON and as server-sent events. */
  PIPELINE_URL: browserUrl.default('/pipeline'),
  /** Where the page posts what people say about an answer. */
  FEEDBACK_URL: browserUrl.default('/function/feedback/'),
});

/** What the page reads from `/config.json`. */
export interface PageConfig {
  predictUrl: string;
  /** Empty: nothing here reports on the pipeline (a cluster), and the page hides it. */
  pipelineUrl: string;
  /** Empty: nobody is asked. */
  feedbackUrl: string;
}

/**
 * Reads the page's settings. Unlike elsewhere an empty `PIPELINE_URL` or `FEEDBACK_URL` has a meaning of its own: none.
 *
 * @throws DandelionError `bad-config` when an address is neither a path nor an `http(s)` URL
 */
export function readPageConfig(env: Environment): PageConfig {
  const settings = readConfig(pageSettings, env);
  return {
    predictUrl: settings.PREDICT_URL,
    pipelineUrl: env.PIPELINE_URL === '' ? '' : settings.PIPELINE_URL,
    feedbackUrl: env.FEEDBACK_URL === '' ? '' : settings.FEEDBACK_URL,
  };
}

/** The origins other than the page's own that it calls; they go into its Content-Security-Policy. */
export function foreignOrigins(config: PageConfig): string[] {
  const urls = [config.predictUrl, config.pipelineUrl, config.feedbackUrl].filter((url) =>
    /^https?:/.test(url),
  );
  return [...new Set(urls.map((url) => new URL(url).origin))];
}
