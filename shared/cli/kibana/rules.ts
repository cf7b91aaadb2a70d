import type { Rule } from './definitions.ts';

/** The search of a rule; Kibana adds the time itself. */
export function ruleSearch({ filter }: Pick<Rule, 'filter'>) {
  return { query: { bool: { filter } } };
}

/** What an update of a rule may say; a new one needs type and consumer besides. */
export function ruleBody({ name, every, window, moreThan, index, ...rule }: Rule) {
  return {
    ...{ name, tags: ['dandelion'], schedule: { interval: every } },
    params: {
      ...{ searchType: 'esQuery', esQuery: JSON.stringify(ruleSearch(rule)), index: [index] },
      ...{ timeField: '@timestamp', size: 10, threshold: [moreThan], thresholdComparator: '>' },
      ...{ timeWindowSize: window.size, timeWindowUnit: window.unit },
      ...{ aggType: 'count', groupBy: 'all', excludeHitsFromPreviousRun: false },
    },
  };
}

/** Source: Kibana API, "Create a rule": ".es-query" is one of the stack's own rules. */
export const ruleKind = { rule_type_id: '.es-query', consumer: 'stackAlerts', enabled: true } as const;
