import type { StoreSettings } from '../../shared/config.ts';
import { type JobTools, serveJobs } from '../../shared/function/compute-worker.ts';
import type { DatasetImage } from '../../shared/stores/datasets.ts';
import type { ModelRecord } from '../../shared/stores/models.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { openServedModel } from '../../shared/stores/served-model.ts';
import type { Score } from './gate.ts';
import { type Answers, answerPhotos, type ScoreReport, scoreAnswers } from './score.ts';

export interface ScoringRequest {
  settings: Pick<StoreSettings, 'OBJECTS_DIR'>;
  name: string;
  version: string;
  images: DatasetImage[];
  /** Of the dataset, in the order of the columns. */
  classes: string[];
}

export interface ScoredModel {
  record: ModelRecord;
  answers: Answers;
  score: Score & ScoreReport;
}

const jobs = {
  /** Lets a model answer photos and holds the answers against the labels; progress counts photos. */
  async score(request: ScoringRequest, { signal, progress }: JobTools): Promise<ScoredModel> {
    const { name, version, images, classes } = request;
    const objects = openObjects(request.settings);
    const model = await openServedModel(objects, name, version);
    try {
      let done = 0;
      const onPhoto = () => {
        done += 1;
        progress(done, images.length);
      };
      const answers = await answerPhotos(model, objects, images, classes, { signal, onPhoto });
      return { record: model.record, answers, score: scoreAnswers(model, answers, images, classes) };
    } finally {
      await model.close();
    }
  },
};
export type EvaluateJobs = typeof jobs;

serveJobs(jobs);
