import type { Logger } from 'pino';
import type { SearchSettings } from '../../shared/config.ts';
import type { PredictionRecord } from '../../shared/events.ts';
import { openSearch } from '../../shared/stores/search.ts';
import { predictionDocument } from '../../shared/stores/search-documents.ts';
import { createSearchWriter } from '../../shared/stores/search-writer.ts';

/** Brings predictions to Elasticsearch for those who search; the record itself is in PostgreSQL. */
export interface PredictionSearch {
  /** Takes records on their way in the background; what a full buffer cannot take is counted and told in the log. */
  offer(records: readonly PredictionRecord[]): void;
  /** Sends what waits, as long as a stop may take. */
  close(): Promise<void>;
}

const LAST_RECORDS_MS = 2000;

/** Connects with the first records, not before; without ELASTICSEARCH_URL records go no further. */
export function openPredictionSearch(settings: SearchSettings, log: Logger): PredictionSearch {
  const say = (sentence: string) => log.warn({ 'event.action': 'prediction-search' }, sentence);
  const search = openSearch(settings, say);
  if (search === undefined) return { offer: () => {}, close: async () => {} };
  const writer = createSearchWriter({ search, say: (sentence) => say(`predictions to ${sentence}`) });
  return {
    offer(records) {
      for (const record of records) writer.offer(predictionDocument(record, search.namespace));
    },
    async close() {
      await writer.close(AbortSignal.timeout(LAST_RECORDS_MS));
      const { stored, refused, dropped } = writer.counts();
      log.info(
        { 'event.action': 'prediction-search' },
        `predictions to Elasticsearch: ${stored} stored, ${refused} refused, ${dropped} dropped`,
      );
      search.close();
    },
  };
}
