import type { Client } from '@elastic/elasticsearch';
import { z } from 'zod';
import type { SearchDocument } from './search-documents.ts';
import { statusOf } from './search-faults.ts';

export interface RefusedDocument {
  document: SearchDocument;
  reason: string;
}

/** What became of each document of one request. */
export interface BulkOutcome {
  stored: number;
  /** Was there already: an earlier try had arrived, though its answer had not. */
  duplicates: number;
  /** Never to be sent again. */
  refused: RefusedDocument[];
  /** The server is too busy for these now. */
  busy: SearchDocument[];
  /** The server met a fault of its own with these. */
  failed: RefusedDocument[];
}

const itemResult = z.object({
  status: z.number(),
  error: z.object({ type: z.string(), reason: z.string().nullish() }).optional(),
});
const bulkAnswer = z.object({ errors: z.boolean(), items: z.array(z.object({ create: itemResult })) });

/** Items keep their places only when each has something to show. */
const answerFields = 'errors,items.*.status,items.*.error.type,items.*.error.reason';

/**
 * Sends documents with one `_bulk` request, each by `create` under its own id, so that a repeat stores nothing twice.
 * A request too large for the server, or that it cannot read, is halved until the documents at fault stand alone.
 *
 * @throws what the client throws when the request as a whole failed: nothing is known of any document then
 */
export async function sendBulk(
  client: Client,
  documents: readonly SearchDocument[],
  signal?: AbortSignal,
): Promise<BulkOutcome> {
  try {
    const operations = documents.flatMap(({ stream, id, json }) => [
      `{"create":{"_index":${JSON.stringify(stream)},"_id":${JSON.stringify(id)}}}`,
      json,
    ]);
    const answer = await client.transport.request<unknown>(
      {
        ...{ method: 'POST', path: '/_bulk', bulkBody: operations },
        // Without its template a name would become an index of guessed types.
        querystring: { filter_path: answerFields, require_data_stream: true },
      },
      signal === undefined ? {} : { signal },
    );
    return judge(bulkAnswer.parse(answer), documents);
  } catch (error) {
    if (statusOf(error) === 429) return { ...nothing(), busy: [...documents] };
    const isOfDocuments = statusOf(error) === 413 || statusOf(error) === 400;
    if (!isOfDocuments) throw error;
    const [only] = documents;
    if (documents.length === 1 && only !== undefined) {
      return { ...nothing(), refused: [{ document: only, reason: (error as Error).message.slice(0, 300) }] };
    }
    const middle = Math.ceil(documents.length / 2);
    const first = await sendBulk(client, documents.slice(0, middle), signal);
    return joined(first, await sendBulk(client, documents.slice(middle), signal));
  }
}

function nothing(): BulkOutcome {
  return { stored: 0, duplicates: 0, refused: [], busy: [], failed: [] };
}

function judge(answer: z.infer<typeof bulkAnswer>, documents: readonly SearchDocument[]): BulkOutcome {
  if (!answer.errors) return { ...nothing(), stored: documents.length };
  const outcome = nothing();
  for (const [place, document] of documents.entries()) {
    const { status, error } = answer.items[place]?.create ?? { status: 500 };
    const reason = `${error?.type ?? 'no answer'}: ${error?.reason ?? ''}`.slice(0, 300);
    if (status < 300) outcome.stored += 1;
    else if (status === 409) outcome.duplicates += 1;
    else if (status === 429) outcome.busy.push(document);
    else if (status >= 500) outcome.failed.push({ document, reason });
    else outcome.refused.push({ document, reason });
  }
  return outcome;
}

function joined(one: BulkOutcome, other: BulkOutcome): BulkOutcome {
  return {
    stored: one.stored + other.stored,
    duplicates: one.duplicates + other.duplicates,
    refused: [...one.refused, ...other.refused],
    busy: [...one.busy, ...other.busy],
    failed: [...one.failed, ...other.failed],
  };
}
