import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { corruptions } from '../vision/corruptions.ts';
import { drawnClasses, drawPhoto } from '../vision/drawn.ts';
import type { EvaluationReport } from './evaluate/report.ts';

const program = join(import.meta.dirname, 'evaluate.ts');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'dandelion-evaluate-'));
  for (const label of drawnClasses) {
    await mkdir(join(folder, 'photos', label), { recursive: true });
    for (let seed = 0; seed < 8; seed += 1) {
      await writeFile(
        join(folder, 'photos', label, `${seed}.jpg`),
        await drawPhoto(label, seed, { width: 200, height: 150 }),
      );
    }
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function evaluate(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, BACKBONE_URI: 'none', INIT_CWD: folder };
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...words], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

describe('npm run evaluate', () => {
  it('measures five classes, and sets aside what it cannot use', async () => {
    const photos = join(folder, 'photos');
    await writeFile(join(photos, 'grass', 'text.jpg'), 'no photo at all');
    await mkdir(join(photos, 'Löwenzahn'));
    await cp(join(photos, 'grass', '2.jpg'), join(photos, 'Löwenzahn', '2.jpg'));
    await cp(join(photos, 'grass', '0.jpg'), join(photos, 'tulip', 'copy.jpg'));
    await cp(join(photos, 'grass', '1.jpg'), join(photos, 'grass', 'copy.jpg'));
    const clover = await sharp(join(photos, 'clover', '0.jpg'))
      .jpeg({ quality: 60 })
      .toBuffer();
    await writeFile(join(photos, 'daisy', 'again.jpg'), clover);
    const files = ['--json', 'r.json', '--doctor', 'doctor.html', '--data', 'data'];
    const words = [
      '--images',
      'photos',
      '--folds',
      '2',
      '--seeds',
      '2',
      '--corruptions',
      '--others',
      'others',
      ...files,
    ];
    const others = join(folder, 'others');
    await mkdir(join(others, 'deeper'), { recursive: true });
    const noise = { type: 'gaussian' as const, mean: 128, sigma: 90 };
    const tile = { width: 200, height: 150, channels: 3 as const, background: '#123' };
    for (const name of ['a.png', join('deeper', 'b.png')]) {
      await sharp({ create: { ...tile, noise } }).toFile(join(others, name));
    }
    await writeFile(join(others, 'c.jpg'), 'no photo at all');
    const { code, stdout, stderr } = await evaluate(...words);
    expect(stderr).toContain('NO BACKBONE');
    expect(code).toBe(0);
    const report = JSON.parse(await readFile(join(folder, 'r.json'), 'utf8')) as EvaluationReport;
    expect(report.images).toMatchObject({
      used: 41,
      classes: { clover: 8, daisy: 9, dandelion: 8, grass: 8, tulip: 8 },
    });
    const { rejected, contradictions } = report.doctor;
    // As the pipeline has it, which would not train on that class.
    expect(stdout).toContain(`${join('Löwenzahn', '2.jpg')}: The label "Löwenzahn" is not allowed`);
    expect(rejected).toMatchObject([
      { source: join('Löwenzahn', '2.jpg'), code: 'bad-label' },
      { source: join('grass', 'text.jpg'), code: 'not-an-image' },
      { source: join('tulip', 'copy.jpg'), code: 'conflicting-labels' },
    ]);
    expect(contradictions).toMatchObject([
      { sources: [join('clover', '0.jpg'), join('daisy', 'again.jpg')], labels: ['clover', 'daisy'] },
    ]);
    const page = await readFile(join(folder, 'doctor.html'), 'utf8');
    for (const name of ['text.jpg', 'again.jpg']) expect(page).toContain(name);
    expect(page.match(/<img/g)?.length).toBe(report.doctor.suspects.length + 2);
    const { accuracy, interval, repeats, perClass, confusion } = report.pipeline;
    // By guessing it would be right for a fifth.
    expect(accuracy).toBeGreaterThan(0.4);
    expect(interval[0]).toBeLessThan(accuracy);
    expect(interval[1]).toBeGreaterThan(accuracy);
    expect(repeats).toHaveLength(2);
    expect(Object.keys(perClass)).toEqual([...drawnClasses].sort());
    expect(confusion.flat().reduce((sum, count) => sum + count, 0)).toBeCloseTo(41);
    const difference = report.pipeline.accuracy - report.plainHead.accuracy;
    expect(report.gain.accuracy.mean).toBeCloseTo(difference);
    expect(stdout).toContain(`${(accuracy * 100).toFixed(2)} %`);
    expect(stdout).toContain('Gain over the plain head');
    const { all, each } = report.corruptions ?? { all: undefined, each: [] };
    expect(each.map(({ corruption }) => corruption)).toEqual(corruptions);
    for (const one of each) {
      expect(one.gain.mean).toBeCloseTo(one.pipeline - one.plainHead);
      expect(stdout).toContain(`\n${one.corruption} `);
    }
    expect(new Set(each.map((one) => one.pipeline)).size).toBeGreaterThan(3);
    expect(report.unknowns).toMatchObject({
      ...{ others: 2, acceptance: 0.95, refused: 1, mistaken: [], rocAuc: 1 },
      rejected: [{ source: 'c.jpg', code: 'not-an-image' }],
    });
    expect(report.unknowns?.accepted).toBeGreaterThan(0.5);
    expect(stdout).toContain('2 photos of none of the classes, 1 that cannot be read: ROC AUC 1.0000');
    const overall = each.reduce((sum, one) => sum + one.pipeline, 0) / each.length;
    expect(all?.pipeline).toBeCloseTo(overall);
  });

  it('says what is wrong with the command line or the folder, and ends with 2', async () => {
    await mkdir(join(folder, 'one', 'grass'), { recursive: true });
    await cp(join(folder, 'photos', 'grass', '0.jpg'), join(folder, 'one', 'grass', '0.jpg'));
    const refusals: [string[], string][] = [
      [[], '--images: give the folder of your photos'],
      [['--images', 'photos', '--folds', '1'], '--folds'],
      [['--images', 'nowhere'], 'nowhere cannot be read'],
      [['--images', 'photos', '--others', 'nowhere'], 'nowhere cannot be read'],
      [['--images', 'one'], 'are of one class'],
    ];
    for (const [words, reason] of refusals) {
      const { code, stderr } = await evaluate('--data', 'data', ...words);
      expect(stderr).toContain(reason);
      expect(code).toBe(2);
    }
  });
});
