import { z } from 'zod';
import { count, list, readConfig, storeSettings } from '../../shared/config.ts';
import { canaryOverrides } from '../../shared/events.ts';
import type { CanaryPolicy } from './decision.ts';

const shares = list
  .transform((texts) => texts.map(Number))
  .pipe(canaryOverrides.shape.shares.unwrap())
  .default([10, 50, 100]);

export const deploySettings = storeSettings.extend({
  /** `pointer`: predict follows champion.json. `knative`: revisions and traffic; where Kubernetes runs us, by default. */
  DEPLOY_TARGET: z.enum(['knative', 'pointer']).optional(),
  /** Set by Kubernetes in every pod. */
  KUBERNETES_SERVICE_HOST: z.string().optional(),
  /** Namespace of predict; unset: the pod's own, or the kubeconfig's. */
  KUBE_NAMESPACE: z.string().optional(),
  /** File with the predict Service, with `${MODEL_NAME}` and `${MODEL_VERSION}` in it. */
  PREDICT_TEMPLATE: z.string().default('/etc/dandelion/predict/service.yaml'),
  PREDICT_SERVICE: z.string().default('predict'),
  /** Address of the cluster's ingress, where names of Services do not resolve: requests name their host in a header. */
  PREDICT_INGRESS: z.url({ protocol: /^https?$/ }).optional(),
  REVISION_READY_TIMEOUT_MS: count(1000).default(300_000),
  /** Revisions that stay, so that a rollback is a change of traffic: the one that serves among them. */
  REVISIONS_KEPT: count(2).default(3),
  CANARY_SHARES: shares,
  CANARY_MIN_SAMPLES: count(1).default(50),
  CANARY_MAX_ERROR_RATE: z.coerce.number().min(0).max(1).default(0.01),
  CANARY_MAX_LATENCY_RATIO: z.coerce.number().min(1).default(1.5),
  CANARY_STAGE_TIMEOUT_MS: count(1000).default(300_000),
  /** How long a deployment waits for another one of the model before it answers "busy". */
  DEPLOY_WAIT_MS: count().default(30_000),
});
export type DeploySettings = z.infer<typeof deploySettings>;

export const readDeploySettings = (env: Parameters<typeof readConfig>[1]) => readConfig(deploySettings, env);

/** The policy of one deployment: what its event says, else the settings. */
export function canaryPolicy(
  settings: DeploySettings,
  given: z.output<typeof canaryOverrides> = {},
): CanaryPolicy {
  return {
    shares: given.shares ?? settings.CANARY_SHARES,
    minSamples: given.minSamples ?? settings.CANARY_MIN_SAMPLES,
    maxErrorRate: given.maxErrorRate ?? settings.CANARY_MAX_ERROR_RATE,
    maxLatencyRatio: given.maxLatencyRatio ?? settings.CANARY_MAX_LATENCY_RATIO,
    stageTimeoutMs: given.stageTimeoutMs ?? settings.CANARY_STAGE_TIMEOUT_MS,
  };
}
