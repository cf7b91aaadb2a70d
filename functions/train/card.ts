import { percent } from '../../shared/percent.ts';
import type { ModelRecord } from '../../shared/stores/models.ts';

/** A model card (Mitchell et al. 2019, https://arxiv.org/abs/1810.03993) in Markdown. */
export function modelCard(model: Omit<ModelRecord, 'files'>): string {
  const { dataset, extractor, training, metrics } = model;
  const classes = Object.entries(dataset.classes).map(([label, photos]) => `| ${label} | ${photos} |`);
  return `# ${model.name} ${model.version}

Tells ${model.classes.join(', ')} apart in a photo. Made ${model.createdAt}.

## Data
Dataset ${dataset.version}: ${dataset.images} photos (${dataset.splits.train} training, ${dataset.splits.validation} validation, ${dataset.splits.test} test).

| class | photos |
|---|---|
${classes.join('\n')}

## Model
A linear softmax head on standardised ${extractor.id} features (${extractor.dimension} numbers a photo), L2 ${training.regularisation},
chosen by cross-validation on the training split (accuracy ${percent(training.crossValidation.accuracy)}), temperature ${training.temperature.toFixed(3)}.
Seed ${training.seed}, trained with ${training.backend} in ${Math.round(training.trainingMs)} ms.
Input: photos cropped to ${model.preprocessing.size} x ${model.preprocessing.size}, aspect kept, RGB.

## Quality on the validation split
Accuracy ${percent(metrics.accuracy)} (95 % interval ${percent(metrics.interval[0])} to ${percent(metrics.interval[1])}, ${metrics.images} photos),
ROC AUC ${metrics.rocAuc.toFixed(3)}, expected calibration error ${percent(metrics.ece)}.
The test split is scored by evaluate: see evaluation.json.

## Limits
${
  model.unknown === undefined
    ? 'A photo of anything else is still given one of their names.'
    : `A photo whose features are less than ${model.unknown.threshold.toFixed(3)} like those of the nearest class (cosine) is answered "unknown":
one of ${Math.round(1 / (1 - model.unknown.acceptance))} photos of the classes is, and not every photo of something else.`
}
`;
}
