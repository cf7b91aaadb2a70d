import { loadPlan, sendLoad } from './load.ts';
import { answerQuestions } from './worker.ts';

answerQuestions(loadPlan, sendLoad);
