import { escapeXml } from './pictures.ts';

/** Markup that is safe to put into a page as it is. */
export type Html = string;

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, Helvetica, Arial, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: clamp(1.4rem, 5vw, 2rem) }
.wide { overflow-x: auto; margin: 0.5rem 0 1.5rem }
table { border-collapse: collapse; overflow-wrap: normal }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #8884; text-align: left }
td { min-width: 4rem; max-width: 30rem; overflow-wrap: break-word }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10rem, 42vw), 1fr)); gap: 1rem }
.pair { max-width: 24rem }
figure { margin: 0; font-size: 0.85rem }
figure img { width: 100%; display: block; background: #8882 }
.pictures svg { max-width: 100%; height: auto; margin-right: 1rem }
`;

/** A page that needs nothing but itself: no script, no file of others. */
export function htmlPage(title: string, parts: readonly Html[]): Buffer {
  return Buffer.from(
    `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">` +
      `<meta name="viewport" content="width=device-width"><title>${escapeXml(title)}</title>` +
      `<style>${STYLE}</style></head>\n<body>\n<h1>${escapeXml(title)}</h1>\n${parts.join('\n')}\n</body></html>\n`,
  );
}

/** A heading below that of the page. */
export function heading(text: string): Html {
  return `<h2>${escapeXml(text)}</h2>`;
}

/** A paragraph of plain text. */
export function paragraph(text: string): Html {
  return `<p>${escapeXml(text)}</p>`;
}

/** What stands to the right of its column: a number, its unit, an interval of two; or nothing. */
const NUMBERS = /^([+-]?\d[\d.]*( %| points)?( to [+-]?\d[\d.]*( %| points)?)?)?$/;

/** A table of text, columns of numbers to the right; an empty one says so. */
export function htmlTable(heads: readonly string[], rows: readonly (readonly string[])[]): Html {
  if (rows.length === 0) return paragraph('None.');
  const isNumber = heads.map((_, column) => rows.every((cells) => NUMBERS.test(cells[column] ?? '')));
  const line = (cells: readonly string[], tag: 'th' | 'td') =>
    `<tr>${cells.map((cell, column) => `<${tag}${isNumber[column] ? ' class="number"' : ''}>${escapeXml(cell)}</${tag}>`).join('')}</tr>`;
  const body = rows.map((cells) => line(cells, 'td')).join('');
  // On a narrow screen it scrolls by itself, and the page stays as wide as the screen.
  return `<div class="wide"><table><thead>${line(heads, 'th')}</thead><tbody>${body}</tbody></table></div>`;
}

/** Figures beside each other, as many as fit. */
export function htmlFigures(figures: readonly Html[], { pair = false } = {}): Html {
  return `<div class="figures${pair ? ' pair' : ''}">${figures.join('')}</div>`;
}

/**
 * A picture with its caption below.
 *
 * @param jpeg the picture
 * @param caption its lines, the first one bold
 */
export function htmlFigure(jpeg: Uint8Array, [first = '', ...others]: readonly string[]): Html {
  const data = `data:image/jpeg;base64,${Buffer.from(jpeg).toString('base64')}`;
  const caption = [`<b>${escapeXml(first)}</b>`, ...others.map(escapeXml)].join('<br>');
  return `<figure><img alt="${escapeXml(first)}" src="${data}"><figcaption>${caption}</figcaption></figure>`;
}
