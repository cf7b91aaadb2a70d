/**
 * Pictures of a classifier's quality as SVG: text stays text, so no fonts are needed where they are drawn, and
 * browsers show them sharp at any size.
 */

/** Of a colour-blind safe palette (Okabe and Ito, https://jfly.uni-koeln.de/color/). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];
const INK = '#222222';
const FAINT = '#cccccc';
const FONT = 'font-family="system-ui, Helvetica, Arial, sans-serif"';
/** Beyond this many classes a matrix shows no numbers and a legend would outgrow its curves. */
const READABLE_CLASSES = 20;
const LONGEST_LABEL = 18;
/** Holds a line, the longest label of the widest letters (13 pixels each) and an area. */
const LEGEND_WIDTH = 360;

/** @returns text that is safe within SVG */
export function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** Cut to what fits beside an axis. */
export function shortened(label: string, longest = LONGEST_LABEL): string {
  return label.length > longest ? `${label.slice(0, longest - 1)}…` : label;
}

interface TextStyle {
  anchor?: 'start' | 'middle' | 'end';
  size?: number;
  colour?: string;
  weight?: 'normal' | 'bold';
  /** Degrees, about the text's own place. */
  turn?: number;
}

/** One line of text; `y` is its middle. */
export function textAt(x: number, y: number, text: string, style: TextStyle = {}): string {
  const { anchor = 'middle', size = 13, colour = INK, weight = 'normal', turn } = style;
  const turned = turn === undefined ? '' : ` transform="rotate(${turn} ${x} ${y})"`;
  return `<text x="${x}" y="${y}" dominant-baseline="central" text-anchor="${anchor}" font-size="${size}" font-weight="${weight}" fill="${colour}"${turned}>${escapeXml(text)}</text>`;
}

/** A whole picture on white. */
export function svgPicture(width: number, height: number, parts: readonly string[]): Buffer {
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ${FONT}>\n` +
      `<rect width="${width}" height="${height}" fill="#ffffff"/>\n${parts.join('\n')}\n</svg>\n`,
  );
}

/**
 * Draws a confusion matrix: photos by true class (rows) and answer (columns), coloured by their share of the row.
 *
 * @param confusion counts, in the order of `classes` both ways
 * @returns an SVG file
 */
export function confusionPicture(
  confusion: readonly (readonly number[])[],
  classes: readonly string[],
  title: string,
): Buffer {
  const isReadable = classes.length <= READABLE_CLASSES;
  const cell = isReadable ? Math.max(34, Math.min(96, 560 / classes.length)) : 560 / classes.length;
  const side = cell * classes.length;
  const [left, top] = [170, 64];
  const middle = (index: number) => (index + 0.5) * cell;
  const cells = confusion.flatMap((row, truth) => {
    const photos = row.reduce((sum, count) => sum + count, 0);
    return row.flatMap((count, answer) => {
      const share = photos === 0 ? 0 : count / photos;
      const [x, y] = [left + answer * cell, top + truth * cell];
      const colour = truth === answer ? COLOURS[0] : COLOURS[1];
      const box = `<rect x="${x}" y="${y}" width="${cell}" height="${cell}" fill="${colour}" fill-opacity="${share.toFixed(3)}" stroke="${FAINT}" stroke-width="0.5"/>`;
      if (!isReadable) return [box];
      const ink = share > 0.55 ? '#ffffff' : INK;
      const number = textAt(left + middle(answer), top + middle(truth), String(count), {
        size: 15,
        colour: ink,
      });
      return [box, number];
    });
  });
  const names = isReadable
    ? classes.flatMap((label, index) => [
        textAt(left - 10, top + middle(index), shortened(label), { anchor: 'end' }),
        textAt(left + middle(index), top + side + 14, shortened(label), { anchor: 'end', turn: -40 }),
      ])
    : [];
  const longest = isReadable ? Math.max(...classes.map((label) => shortened(label).length)) : 0;
  // Seven pixels a letter, turned by 40 degrees.
  const below = top + side + 36 + longest * 7 * Math.sin((40 / 180) * Math.PI);
  const width = left + Math.max(side, 330) + 40;
  return svgPicture(width, Math.ceil(below + 24), [
    textAt(left, 28, title, { anchor: 'start', size: 16, weight: 'bold' }),
    ...cells,
    ...names,
    textAt(24, top + side / 2, 'true class', { turn: -90, size: 14 }),
    textAt(left + side / 2, Math.round(below), 'answer', { size: 14 }),
  ]);
}

/**
 * Draws the ROC curve of each class against all others.
 *
 * @param roc areas, and curves as [false positive rate, true positive rate]
 * @returns an SVG file
 */
export function rocPicture(
  roc: Readonly<Record<string, { auc: number; curve: readonly (readonly [number, number])[] }>>,
  title: string,
): Buffer {
  const [left, top, side] = [76, 64, 420];
  const place = ([x, y]: readonly [number, number]) =>
    `${(left + x * side).toFixed(1)},${(top + (1 - y) * side).toFixed(1)}`;
  const grid = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    `<path d="M${place([share, 0])} L${place([share, 1])} M${place([0, share])} L${place([1, share])}" stroke="${FAINT}" stroke-width="0.5"/>`,
    textAt(left + share * side, top + side + 16, String(share), { size: 12 }),
    textAt(left - 10, top + (1 - share) * side, String(share), { size: 12, anchor: 'end' }),
  ]);
  const drawn = Object.entries(roc).filter(([, { curve }]) => curve.length > 0);
  // Curves of few classes may lie on each other: every second one is dashed.
  const styleOf = (index: number) =>
    `stroke="${COLOURS[index % COLOURS.length]}"${index % 2 === 1 ? ' stroke-dasharray="7 5"' : ''}`;
  const curves = drawn.map(
    ([, { curve }], index) =>
      `<polyline points="${curve.map(place).join(' ')}" fill="none" stroke-width="2.5" ${styleOf(index)}/>`,
  );
  const legend = drawn.slice(0, READABLE_CLASSES).flatMap(([label, { auc }], index) => {
    const [x, y] = [left + side + 24, top + 12 + index * 22];
    return [
      `<path d="M${x} ${y} h28" stroke-width="2.5" ${styleOf(index)}/>`,
      textAt(x + 36, y, `${shortened(label)}  ${auc.toFixed(3)}`, { anchor: 'start' }),
    ];
  });
  return svgPicture(left + side + LEGEND_WIDTH, top + side + 76, [
    textAt(left, 28, title, { anchor: 'start', size: 16, weight: 'bold' }),
    ...grid,
    `<path d="M${place([0, 0])} L${place([1, 1])}" stroke="${INK}" stroke-dasharray="2 4" stroke-width="1"/>`,
    ...curves,
    ...legend,
    textAt(left + side + 24, top - 12, 'area under the curve', { anchor: 'start', size: 12 }),
    textAt(left + side / 2, top + side + 50, 'false positive rate', { size: 14 }),
    textAt(24, top + side / 2, 'true positive rate', { size: 14, turn: -90 }),
  ]);
}

/**
 * Draws a reliability diagram: how often answers of each confidence are right; on the diagonal confidence is truth.
 *
 * @param bins equally wide intervals of confidence, in order
 * @returns an SVG file
 */
export function calibrationPicture(
  bins: readonly { upTo: number; photos: number; confidence: number; accuracy: number }[],
  title: string,
): Buffer {
  const [left, top, side] = [76, 64, 420];
  const width = side / bins.length;
  const most = Math.max(1, ...bins.map(({ photos }) => photos));
  const bars = bins.flatMap(({ photos, confidence, accuracy }, index) => {
    if (photos === 0) return [];
    const [x, height] = [left + index * width, accuracy * side];
    const bar = `<rect x="${x.toFixed(1)}" y="${(top + side - height).toFixed(1)}" width="${(width - 1).toFixed(1)}" height="${height.toFixed(1)}" fill="${COLOURS[0]}" fill-opacity="${(0.25 + (0.6 * photos) / most).toFixed(2)}"/>`;
    const y = (top + side - confidence * side).toFixed(1);
    const mark = `<path d="M${x.toFixed(1)} ${y} h${(width - 1).toFixed(1)}" stroke="${COLOURS[1]}" stroke-width="2.5"/>`;
    return [bar, mark, textAt(x + width / 2, top + side + 12, String(photos), { size: 10 })];
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => {
    const y = top + (1 - share) * side;
    return [
      `<path d="M${left} ${y} h${side}" stroke="${FAINT}" stroke-width="0.5"/>`,
      textAt(left - 10, y, String(share), { size: 12, anchor: 'end' }),
      textAt(left + share * side, top + side + 28, String(share), { size: 12 }),
    ];
  });
  return svgPicture(left + side + 240, top + side + 76, [
    textAt(left, 28, title, { anchor: 'start', size: 16, weight: 'bold' }),
    `<rect x="${left}" y="${top}" width="${side}" height="${side}" fill="none" stroke="${FAINT}"/>`,
    `<path d="M${left} ${top + side} L${left + side} ${top}" stroke="${INK}" stroke-dasharray="2 4" stroke-width="1"/>`,
    ...ticks,
    ...bars,
    textAt(left + side + 24, top + 12, 'bar: share that is right', { anchor: 'start', size: 12 }),
    textAt(left + side + 24, top + 32, 'line: mean confidence', { anchor: 'start', size: 12 }),
    textAt(left + side / 2, top + side + 50, 'confidence (above it: photos)', { size: 14 }),
    textAt(24, top + side / 2, 'right', { size: 14, turn: -90 }),
  ]);
}
