import { describe, expect, it } from 'vitest';
import { htmlPage, htmlTable } from './html-page.ts';

describe('htmlTable', () => {
  it('puts columns of numbers to the right, and text to the left', () => {
    const table = htmlTable(
      ['check', 'value', '95 % interval', 'gain', 'detail'],
      [
        ['floor', '0.93', '82.8 % to 97.8 %', '+0.20 points', 'accuracy on 47 photos'],
        ['calibration', '12', '', '-1.00 points to +0.40 points', ''],
      ],
    );
    expect(table.match(/<th( class="number")?>/g)).toEqual([
      '<th>',
      '<th class="number">',
      '<th class="number">',
      '<th class="number">',
      '<th>',
    ]);
    expect(table).toContain('<td>accuracy on 47 photos</td>');
    expect(table).toContain('<td class="number">82.8 % to 97.8 %</td>');
  });

  it('scrolls by itself where it is wider than the screen', () => {
    expect(htmlTable(['a'], [['b']])).toMatch(/^<div class="wide"><table>.*<\/table><\/div>$/);
    expect(htmlPage('t', []).toString()).toContain('.wide { overflow-x: auto');
  });

  it('says so when it is empty, and lets no text become markup', () => {
    expect(htmlTable(['a'], [])).toContain('None.');
    expect(htmlTable(['a'], [['<b>']])).toContain('&lt;b&gt;');
  });
});
