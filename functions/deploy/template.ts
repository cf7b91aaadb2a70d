import { parse } from 'yaml';
import { z } from 'zod';
import { DandelionError } from '../../shared/errors.ts';
import { schemaFaults } from '../../shared/schema-faults.ts';

const container = z.looseObject({
  env: z.array(z.looseObject({ name: z.string(), value: z.string().optional() })).default([]),
});
const metadata = z.looseObject({
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
const serviceTemplate = z.looseObject({
  apiVersion: z.literal('serving.knative.dev/v1'),
  kind: z.literal('Service'),
  metadata: metadata.extend({ name: z.string() }),
  spec: z.looseObject({
    traffic: z.undefined({ error: 'deploy says where the traffic goes; leave it out' }).optional(),
    template: z.looseObject({
      metadata: metadata
        .extend({ name: z.undefined({ error: 'deploy names the revisions; leave it out' }).optional() })
        .optional(),
      spec: z.looseObject({ containers: z.array(container).min(1) }),
    }),
  }),
});

/** A Service for one version, without traffic. */
export type PredictService = z.output<typeof serviceTemplate>;

export const VERSION_LABEL = 'dandelion.dev/model-version';
const placeholders = ['MODEL_NAME', 'MODEL_VERSION'] as const;

/**
 * Fills the template in for one version.
 *
 * @throws DandelionError `bad-config` naming the unknown placeholder, what is missing or what does not fit
 */
export function renderService(
  template: string,
  wanted: { service: string; model: string; version: string; revision: string },
): PredictService {
  const values: Record<string, string> = { MODEL_NAME: wanted.model, MODEL_VERSION: wanted.version };
  const text = template.replace(/\$\{([^}]*)\}/g, (_whole, name: string) => {
    const value = values[name];
    if (value === undefined)
      throw refused(`it has the unknown placeholder \${${name}}; there are ${placeholders.join(', ')}`);
    return value;
  });
  const parsed = serviceTemplate.safeParse(parseYaml(text));
  if (!parsed.success) {
    throw refused(schemaFaults(parsed.error, 'template'));
  }
  const { data } = parsed;
  if (data.metadata.name !== wanted.service) {
    throw refused(`it is called "${data.metadata.name}", PREDICT_SERVICE is "${wanted.service}"`);
  }
  for (const name of placeholders) {
    const given = data.spec.template.spec.containers.flatMap(({ env }) => env);
    if (!given.some((variable) => variable.name === name && variable.value === values[name])) {
      throw refused(`a container needs the variable ${name} with the value \${${name}}`);
    }
  }
  const labels = { ...data.spec.template.metadata?.labels, [VERSION_LABEL]: wanted.version };
  data.spec.template.metadata = { ...data.spec.template.metadata, name: undefined, labels };
  return data;
}

function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch (cause) {
    throw refused(cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause));
  }
}

function refused(why: string): DandelionError {
  return new DandelionError(
    'bad-config',
    `The template of the predict Service cannot be used: ${why}. Mend the ConfigMap predict-template.`,
  );
}
