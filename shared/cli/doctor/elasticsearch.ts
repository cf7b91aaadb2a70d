import { DandelionError } from '../../errors.ts';
import { openSearch } from '../../stores/search.ts';
import { explainSearchFault } from '../../stores/search-faults.ts';
import { type Check, notConfigured, timed } from './check.ts';

export const elasticsearch: Check = {
  name: 'Elasticsearch',
  variable: 'ELASTICSEARCH_URL',
  async look(settings) {
    const { ELASTICSEARCH_URL: url } = settings;
    const search = openSearch(settings);
    if (search === undefined || url === undefined) {
      return notConfigured('logs stay files; ELASTICSEARCH_URL brings logs, metrics and predictions there');
    }
    try {
      const client = await search.client();
      const { answer, latencyMs } = await timed(() => client.info());
      const { status } = await client.cluster.health();
      if (status === 'red') {
        throw new DandelionError(
          'store-unavailable',
          `Elasticsearch at ${search.host} is red: shards are missing; see GET /_cluster/allocation/explain.`,
        );
      }
      return { status: 'ok', version: answer.version.number, latencyMs, detail: `${search.host}, ${status}` };
    } catch (error) {
      throw explainSearchFault(error, url);
    } finally {
      search.close();
    }
  },
};
