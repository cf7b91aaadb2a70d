import { shortened, svgPicture, textAt } from './pictures.ts';
import { thumbnail } from './thumbnail.ts';

/** A photo that was answered wrongly. */
export interface WrongAnswer {
  /** The photo's file. */
  bytes: Uint8Array;
  label: string;
  answer: string;
  /** Probability of the answer, 0 to 1. */
  confidence: number;
}

/** Beyond it a sheet is no longer looked at; the surest mistakes tell most. */
export const SHEET_PHOTOS = 40;
const COLUMNS = 5;
const THUMBNAIL = 180;
const GAP = 16;
const CAPTION = 44;
const HEADER = 56;

/**
 * Lays photos that were answered wrongly side by side, each with its true class and the answer.
 *
 * The thumbnails are JPEGs within an SVG, the captions text: no fonts are needed where it is drawn.
 *
 * @param photos in the order they are shown; at most 40 are
 * @param title says how many there are in all
 * @returns an SVG file
 */
export async function contactSheet(photos: readonly WrongAnswer[], title: string): Promise<Buffer> {
  const shown = photos.slice(0, SHEET_PHOTOS);
  const cells = await Promise.all(shown.map(drawCell));
  const columns = Math.max(3, Math.min(COLUMNS, shown.length));
  const rows = Math.ceil(shown.length / columns);
  const placed = cells.map((cell, index) => {
    const x = GAP + (index % columns) * (THUMBNAIL + GAP);
    const y = HEADER + Math.floor(index / columns) * (THUMBNAIL + CAPTION + GAP);
    return `<g transform="translate(${x} ${y})">${cell}</g>`;
  });
  const width = GAP + columns * (THUMBNAIL + GAP);
  const height = HEADER + rows * (THUMBNAIL + CAPTION + GAP);
  const header = textAt(GAP, 28, title, { anchor: 'start', size: 16, weight: 'bold' });
  return svgPicture(width, height, [header, ...placed]);
}

async function drawCell({ bytes, label, answer, confidence }: WrongAnswer): Promise<string> {
  const picture = await thumbnail(bytes, THUMBNAIL);
  const percent = `${Math.round(confidence * 100)} %`;
  return [
    `<image width="${THUMBNAIL}" height="${THUMBNAIL}" href="data:image/jpeg;base64,${picture.toString('base64')}"/>`,
    textAt(0, THUMBNAIL + 14, `is ${shortened(label, 22)}`, { anchor: 'start' }),
    textAt(0, THUMBNAIL + 32, `said ${shortened(answer, 16)} ${percent}`, {
      anchor: 'start',
      colour: '#b03a00',
    }),
  ].join('');
}
