import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DandelionError } from '../../shared/errors.ts';
import { parseManifest } from './manifest-csv.ts';

const parse = (text: string) => parseManifest(Buffer.from(text));
const pairs = (text: string) => parse(text).rows.map(({ line, url, label }) => [line, url, label]);

function problemOf(input: string | Uint8Array): string {
  try {
    parseManifest(typeof input === 'string' ? Buffer.from(input) : input);
  } catch (error) {
    if (error instanceof DandelionError && error.code === 'bad-manifest') return error.message;
    throw error;
  }
  return 'accepted';
}

describe('parseManifest', () => {
  it('reads urls and labels with the line each stands on', () => {
    expect(pairs('url,label\na.jpg,grass\nb.jpg,daisy\n')).toEqual([
      [2, 'a.jpg', 'grass'],
      [3, 'b.jpg', 'daisy'],
    ]);
  });

  it('copes with byte-order mark, CRLF, CR, blank lines, spaces and a missing last line end', () => {
    const expected = [
      [2, 'a.jpg', 'grass'],
      [4, 'b.jpg', 'daisy'],
    ];
    expect(pairs('\ufeffurl,label\r\na.jpg,grass\r\n\r\n b.jpg , daisy ')).toEqual(expected);
    expect(pairs('url,label\ra.jpg,grass\r\rb.jpg,daisy\r')).toEqual(expected);
    expect(pairs('\nurl,label\na.jpg,grass\r\nb.jpg,daisy')).toEqual([
      [3, 'a.jpg', 'grass'],
      [4, 'b.jpg', 'daisy'],
    ]);
  });

  it('finds the columns by name, in any order and among others', () => {
    expect(pairs('id,Label,note,URL\n1,grass,"two\nlines",a.jpg\n2,daisy,,b.jpg')).toEqual([
      [2, 'a.jpg', 'grass'],
      [4, 'b.jpg', 'daisy'],
    ]);
  });

  it('keeps quoted commas and quotes', () => {
    expect(pairs('url,label\n"http://x/a,b ""c"".jpg","grass"')).toEqual([
      [2, 'http://x/a,b "c".jpg', 'grass'],
    ]);
  });

  it('lists each bad line with its number and loses no other line', () => {
    const { rows, faults } = parse(
      [
        'url,label',
        'a.jpg,grass',
        'b.jpg',
        ',daisy',
        '"c.jpg,daisy',
        'd.jpg,daisy',
        'e"e.jpg,x',
        '"f"f,x',
        'g.jpg,daisy',
      ].join('\n'),
    );
    expect(rows.map((row) => [row.line, row.url])).toEqual([
      [2, 'a.jpg'],
      [6, 'd.jpg'],
      [9, 'g.jpg'],
    ]);
    expect(faults.map((fault) => [fault.line, fault.url])).toEqual([
      [3, 'b.jpg'],
      [4, ''],
      [5, ''],
      [7, ''],
      [8, ''],
    ]);
    expect(faults[0]?.reason).toContain('label is missing');
    expect(faults[1]?.reason).toContain('url is missing');
    expect(faults[2]?.reason).toContain('quote');
  });

  it('refuses what is no manifest, and says what to do', () => {
    expect(problemOf('')).toContain('url,label');
    expect(problemOf('\n\n')).toContain('url,label');
    expect(problemOf('url,label\n')).toContain('no lines');
    expect(problemOf('url;label\na;b\n')).toContain('with commas');
    expect(problemOf('a.jpg,grass\n')).toContain('a.jpg,grass');
    expect(problemOf('url,label,url\na,b,c')).toContain('twice');
    expect(problemOf(Buffer.from('url,label\nä.jpg,grass', 'latin1'))).toContain('UTF-8');
    expect(problemOf(Buffer.from('\ufeffurl,label\na,b', 'utf16le'))).toContain('UTF-8');
    expect(problemOf(Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 1]))).toContain('UTF-8');
  });

  it('gives up on a file of broken quotes instead of listing each', () => {
    expect(problemOf(`url,label\n${'"x"y,z\n'.repeat(1200)}`)).toContain('broken quotes');
  });

  const lineEnd = fc.constantFrom('\n', '\r\n', '\r');
  const field = fc
    .string({
      unit: fc.constantFrom('a', 'Z', '7', ' ', ',', '"', '/', 'é', '花', '\u{1f33c}'),
      minLength: 1,
    })
    .filter((text) => text.trim() !== '');
  const quote = (text: string) => `"${text.replaceAll('"', '""')}"`;

  it('returns whatever RFC 4180 can write', () => {
    const record = fc.record({ url: field, label: field, note: fc.string(), blank: fc.boolean() });
    fc.assert(
      fc.property(fc.array(record, { minLength: 1 }), lineEnd, fc.boolean(), (records, end, bom) => {
        const lines = records.flatMap(({ url, label, note, blank }) => [
          ...(blank ? [''] : []),
          [url, label, note].map(quote).join(','),
        ]);
        const text = `${bom ? '\ufeff' : ''}${['url,label,note', ...lines].join(end)}`;
        const { rows, faults } = parse(text);
        expect(faults).toEqual([]);
        expect(rows.map(({ url, label }) => [url, label])).toEqual(
          records.map(({ url, label }) => [url.trim(), label.trim()]),
        );
      }),
    );
  });

  it('reads or refuses any bytes, and accounts for every line once, in order', () => {
    const piece = fc.constantFrom('a', ',', '"', '""', '\n', '\r\n', ' ', 'x.jpg,grass\n', '\0', 'é');
    const text = fc.array(piece, { maxLength: 60 }).map((pieces) => `url,label\n${pieces.join('')}`);
    fc.assert(
      fc.property(text, (manifest) => {
        if (problemOf(manifest) !== 'accepted') return;
        const { rows, faults } = parse(manifest);
        const lines = [...rows, ...faults].map((item) => item.line).sort((a, b) => a - b);
        expect(new Set(lines).size).toBe(lines.length);
        const physical = manifest.replace(/\r\n?/g, '\n').split('\n');
        for (const line of lines) expect(physical[line - 1]).not.toBe('');
        // Without quotes a record is a line, so none may be missing.
        if (manifest.includes('"')) return;
        expect(lines).toEqual(physical.flatMap((content, at) => (at > 0 && content !== '' ? [at + 1] : [])));
      }),
      { numRuns: 500 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void problemOf(bytes)));
  });

  it('never lets one broken line take good ones with it', () => {
    const broken = fc.constantFrom(
      '"never closed,x',
      'in"side,x',
      '"after"x,y',
      'no label',
      ',no url',
      '"",""',
    );
    const line = fc.oneof(fc.constant('good.jpg,grass'), broken);
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 30 }), (lines) => {
        // An unclosed quote ends where a later line opens one: those lines are one record of RFC 4180.
        fc.pre(lines.filter((text) => text.includes('"')).length <= 1);
        const { rows, faults } = parse(`url,label\n${lines.join('\n')}\n`);
        const good = lines.flatMap((text, at) => (text.startsWith('good') ? [at + 2] : []));
        expect(rows.map((row) => row.line)).toEqual(good);
        expect(faults).toHaveLength(lines.length - good.length);
      }),
    );
  });
});
