import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type DrawnClass, drawPhoto } from '../vision/drawn.ts';

const classes: readonly DrawnClass[] = ['dandelion', 'grass'];
const photosPerClass = 80;

/**
 * Draws the sample photos into a folder, a sub-folder a class; a folder that is there already is left as it is.
 *
 * @param onStart called when there is something to draw
 * @returns how many photos there are
 */
export async function drawSample(folder: string, onStart: () => void): Promise<number> {
  const total = classes.length * photosPerClass;
  if ((await stat(folder).catch(() => undefined))?.isDirectory()) return total;
  onStart();
  const draft = `${folder}.draft`;
  await rm(draft, { recursive: true, force: true });
  for (const label of classes) {
    await mkdir(join(draft, label), { recursive: true });
    for (let seed = 0; seed < photosPerClass; seed++) {
      const name = `${String(seed).padStart(8, '0')}.jpg`;
      await writeFile(join(draft, label, name), await drawPhoto(label, seed));
    }
  }
  await rename(draft, folder);
  return total;
}
