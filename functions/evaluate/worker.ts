import type { ObjectSettings } from '../../shared/config.ts';
import { type JobTools, serveJobs } from '../../shared/function/compute-worker.ts';
import type { DatasetImage } from '../../shared/stores/datasets.ts';
import { readPhoto } from '../../shared/stores/images.ts';
import type { ModelRecord } from '../../shared/stores/models.ts';
import { openObjects } from '../../shared/stores/objects.ts';
import { openServedModel } from '../../shared/stores/served-model.ts';
import { contactSheet, SHEET_PHOTOS, type WrongAnswer } from '../../shared/vision/contact-sheet.ts';
import type { Score } from './gate.ts';
import { type Answers, answerPhotos, type ScoreReport, scoreAnswers } from './score.ts';

export interface ScoringRequest {
  settings: ObjectSettings;
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

export interface SheetRequest {
  settings: ScoringRequest['settings'];
  /** In the order they are shown. */
  mistakes: (Omit<WrongAnswer, 'bytes'> & { sha256: string })[];
  /** What was measured, for the title. */
  subject: string;
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

  /** Draws the photos that were answered wrongly; an SVG file. */
  async drawSheet({ settings, mistakes, subject }: SheetRequest, { signal }: JobTools): Promise<Uint8Array> {
    const objects = openObjects(settings);
    const photos: WrongAnswer[] = [];
    for (const { sha256, ...answer } of mistakes.slice(0, SHEET_PHOTOS)) {
      signal.throwIfAborted();
      photos.push({ ...answer, bytes: await readPhoto(objects, sha256) });
    }
    const shown = photos.length < mistakes.length ? `, the surest ${photos.length} shown` : '';
    return contactSheet(photos, `${subject}: ${mistakes.length} answered wrongly${shown}`);
  },
};
export type EvaluateJobs = typeof jobs;

serveJobs(jobs);
