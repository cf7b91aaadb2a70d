import { DandelionError } from '../../shared/errors.ts';
import { UNKNOWN } from '../../shared/events.ts';
import { readForm } from '../../shared/function/forms.ts';
import type { FunctionEvent } from '../../shared/function/types.ts';
import { schemaFaults } from '../../shared/schema-faults.ts';
import { readModel } from '../../shared/stores/models.ts';
import type { ObjectStore } from '../../shared/stores/objects.ts';
import { type FeedbackRequest, feedbackRequest } from './config.ts';

const HOW_TO_SEND =
  'Send JSON {"prediction", "model", "predicted", "correct": true} or {..., "correct": false, "label"}; to give the ' +
  'photo along, multipart/form-data with that JSON, and "consent": true in it, as the field "feedback" and the file "photo".';
const FEEDBACK_BYTES = 4096;

/** What was said, checked against the model it is about. */
export interface SaidFeedback {
  said: Pick<FeedbackRequest, 'prediction' | 'model' | 'predicted'> & { label: string | null };
  photo: Uint8Array | undefined;
}

/**
 * Reads feedback out of a request.
 *
 * @throws DandelionError `bad-request`, `bad-data`, `unsupported-media-type`, `consent-missing`, `version-unknown`,
 *   `label-unknown`
 */
export async function readFeedback(event: FunctionEvent, objects: ObjectStore): Promise<SaidFeedback> {
  const { body, photo } = await readBody(event);
  const parsed = feedbackRequest.safeParse(body);
  if (!parsed.success) {
    const faults = schemaFaults(parsed.error, 'feedback');
    throw new DandelionError('bad-data', `The feedback does not fit: ${faults}. ${HOW_TO_SEND}`);
  }
  const request = parsed.data;
  if (photo !== undefined && !request.consent) {
    throw new DandelionError('consent-missing', 'A photo came without "consent": true; it was not kept.');
  }
  if (photo === undefined && request.consent) {
    throw new DandelionError('bad-data', `Consent was given, but no photo. ${HOW_TO_SEND}`);
  }
  const label = request.correct ? nameOf(request.predicted) : request.label;
  await checkLabels(objects, request, label);
  const { prediction, model, predicted } = request;
  return { said: { prediction, model, predicted, label }, photo };
}

/** "unknown" is what predict says of none of the classes. */
function nameOf(predicted: string): string | null {
  return predicted === UNKNOWN ? null : predicted;
}

async function readBody(event: FunctionEvent): Promise<{ body: unknown; photo?: Uint8Array }> {
  const [header = ''] = [event.headers['content-type'] ?? []].flat();
  const type = header.split(';', 1)[0]?.trim().toLowerCase();
  if (type === 'application/json') return { body: event.body };
  if (type !== 'multipart/form-data') {
    throw new DandelionError(
      'unsupported-media-type',
      `"${type || 'no Content-Type'}" is not taken. ${HOW_TO_SEND}`,
    );
  }
  const { fields, files } = await readForm(event, { files: 2, fieldBytes: FEEDBACK_BYTES }, HOW_TO_SEND);
  const [file, ...others] = files;
  if (others.length > 0)
    throw new DandelionError('bad-data', 'Feedback is about one photo; there are several.');
  const body = parseJson(fields.get('feedback'));
  return file === undefined ? { body } : { body, photo: file.bytes };
}

function parseJson(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    throw new DandelionError('bad-request', `The field "feedback" is no JSON. ${HOW_TO_SEND}`);
  }
}

async function checkLabels(
  objects: ObjectStore,
  { model, predicted }: FeedbackRequest,
  label: string | null,
): Promise<void> {
  const { classes } = await readModel(objects, model.name, model.version).catch((cause: unknown) => {
    if (!(cause instanceof DandelionError) || cause.code !== 'model-unknown') throw cause;
    throw new DandelionError('version-unknown', `There is no model ${model.name} ${model.version}.`, {
      cause,
    });
  });
  for (const name of [nameOf(predicted), label]) {
    if (name === null || classes.includes(name)) continue;
    throw new DandelionError(
      'label-unknown',
      `${model.name} ${model.version} has no "${name}", only ${classes.join(', ')}.`,
    );
  }
}
