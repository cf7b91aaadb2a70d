import { z } from 'zod';
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

const ruleWithActions = z.object({
  actions: z
    .array(
      // Of what Kibana tells of an action, all that it takes back: it refuses a field that it does not know.
      z.object({
        id: z.string(),
        group: z.string().optional(),
        params: z.record(z.string(), z.unknown()).optional(),
        uuid: z.string().optional(),
        frequency: z.record(z.string(), z.unknown()).optional(),
        alerts_filter: z.record(z.string(), z.unknown()).optional(),
        use_alert_data_for_template: z.boolean().optional(),
      }),
    )
    .default([]),
});

/**
 * The actions of a rule as Kibana tells it, for its update: one without any takes them away.
 *
 * Source: Kibana API, "Update a rule"; `actions` is `[]` where a request leaves it out.
 */
export function actionsOf(rule: string): unknown[] {
  return ruleWithActions.parse(JSON.parse(rule)).actions;
}
