import { stringify } from 'yaml';
import type { TensorSpec, TrackedModel } from './tracking.ts';

/**
 * The file that makes a folder a model for MLflow: its UI shows the schema, its clients know how to load it
 * (https://mlflow.org/docs/latest/ml/model/#storage-format).
 *
 * @param ids of the run and of the logged model in the store
 * @returns YAML
 */
export function mlmodelFile(
  { flavors, signature }: TrackedModel,
  ids: { artifactPath: string; runId: string; modelId: string },
): Uint8Array {
  const file = {
    artifact_path: ids.artifactPath,
    flavors,
    model_id: ids.modelId,
    model_uuid: ids.modelId,
    run_id: ids.runId,
    signature: {
      inputs: tensors(signature.inputs),
      outputs: tensors(signature.outputs),
      params: null,
    },
    // MLflow's own form: UTC without a zone.
    utc_time_created: new Date().toISOString().replace('T', ' ').replace('Z', '000'),
  };
  return Buffer.from(stringify(file, { lineWidth: 0 }));
}

/** MLflow wants the schema as JSON within the YAML. */
function tensors(specs: readonly TensorSpec[]): string {
  return JSON.stringify(
    specs.map(({ name, dtype, shape }) => ({ name, type: 'tensor', 'tensor-spec': { dtype, shape } })),
  );
}
