import { byId, element } from './dom.js';
import { formatShare } from './format.js';

/** @typedef {import('./queue.js').Entry} Entry */

const THUMBNAIL_PIXELS = 144;

/** @type {Map<number, HTMLElement>} by the entry's id; drawn once, for a photo is large to decode */
const thumbnails = new Map();

/**
 * Draws the strip of this visit's photos, newest first; hidden until there are two.
 *
 * @param {Entry[]} entries
 * @param {Entry | undefined} selected
 * @param {(entry: Entry) => void} onSelect
 */
export function showHistory(entries, selected, onSelect) {
  const section = byId('history', HTMLElement);
  section.hidden = entries.length < 2;
  const kept = new Set(entries.map((entry) => entry.id));
  for (const id of thumbnails.keys()) if (!kept.has(id)) thumbnails.delete(id);
  const list = byId('history-list', HTMLUListElement);
  const focused =
    document.activeElement instanceof HTMLElement ? document.activeElement.dataset.entry : undefined;
  list.replaceChildren(
    ...entries.map((entry) => element('li', {}, entryButton(entry, entry === selected, onSelect))),
  );
  // Drawn anew on every change: whoever stands on a photo with the keyboard stays on it.
  if (focused !== undefined) byEntry(list, focused)?.focus();
}

/**
 * @param {HTMLElement} list
 * @param {string} id
 * @returns {HTMLElement | null}
 */
function byEntry(list, id) {
  return list.querySelector(`[data-entry="${id}"]`);
}

/**
 * @param {Entry} entry
 * @param {boolean} selected
 * @param {(entry: Entry) => void} onSelect
 */
function entryButton(entry, selected, onSelect) {
  const button = element(
    'button',
    { type: 'button', class: 'history-entry', 'data-status': entry.status, 'data-entry': String(entry.id) },
    thumbnailOf(entry),
    element('span', { class: 'history-label' }, captionOf(entry)),
    element('span', { class: 'history-share' }, shareOf(entry)),
  );
  button.setAttribute('aria-pressed', String(selected));
  button.title = entry.file.name;
  button.addEventListener('click', () => onSelect(entry));
  return button;
}

/** @param {Entry} entry */
function captionOf(entry) {
  if (entry.prediction) return entry.prediction.label;
  return entry.status === 'refused' ? 'not read' : entry.status;
}

/** @param {Entry} entry */
function shareOf(entry) {
  const share = entry.prediction?.classes[0]?.share;
  return share === undefined ? '' : formatShare(share);
}

/** @param {Entry} entry */
function thumbnailOf(entry) {
  const known = thumbnails.get(entry.id);
  if (known !== undefined) return known;
  const canvas = element('canvas', { class: 'thumbnail', 'aria-hidden': 'true' });
  canvas.width = THUMBNAIL_PIXELS;
  canvas.height = THUMBNAIL_PIXELS;
  thumbnails.set(entry.id, canvas);
  drawThumbnail(canvas, entry.file);
  return canvas;
}

/**
 * The centre square, which is also what the model looks at. A file that is no image gets a question mark.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {File} file
 */
async function drawThumbnail(canvas, file) {
  const bitmap = await createImageBitmap(file).catch(() => undefined);
  const pen = canvas.getContext('2d');
  if (pen === null) return;
  if (bitmap === undefined) {
    drawUnknown(pen);
    return;
  }
  const side = Math.min(bitmap.width, bitmap.height);
  const left = (bitmap.width - side) / 2;
  const top = (bitmap.height - side) / 2;
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(bitmap, left, top, side, side, 0, 0, canvas.width, canvas.height);
  bitmap.close();
}

/** @param {CanvasRenderingContext2D} pen */
function drawUnknown(pen) {
  pen.fillStyle = '#8a9682';
  pen.font = `600 ${THUMBNAIL_PIXELS / 2}px system-ui, sans-serif`;
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  pen.fillText('?', THUMBNAIL_PIXELS / 2, THUMBNAIL_PIXELS / 2);
}
