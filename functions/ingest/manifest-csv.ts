import { parse } from 'csv-parse/sync';
import { DandelionError } from '../../shared/errors.ts';
import { errorCodeOf } from '../../shared/system-errors.ts';

/** A line of the manifest that names a photo. */
export interface ManifestRow {
  /** The line its record starts on, from 1. */
  line: number;
  url: string;
  label: string;
}

/** A line that cannot be used. `url` is empty when the line has none. */
export interface ManifestFault {
  line: number;
  url: string;
  reason: string;
}

/** A record larger than this has a quote that is never closed, and would swallow the lines after it. */
const MAX_RECORD_BYTES = 128 * 1024;
/** Each broken quote costs a new start of the parser; a file with more is not CSV. */
const MAX_BROKEN_RECORDS = 1000;

/**
 * Reads a manifest: CSV (RFC 4180) in UTF-8 with a header that has the columns `url` and `label`; further columns
 * are ignored, as are a byte-order mark, blank lines and white space around a field. Lines may end in CR, LF or
 * both. One bad line costs that line only.
 *
 * @throws DandelionError `bad-manifest` when it is not UTF-8, has no usable header, or has no line beside it
 */
export function parseManifest(bytes: Uint8Array): { rows: ManifestRow[]; faults: ManifestFault[] } {
  const lines = decodeText(bytes).replace(/\r\n?/g, '\n').split('\n');
  const rows: ManifestRow[] = [];
  const faults: ManifestFault[] = [];
  let columns: Columns | undefined;
  for (const record of readRecords(lines)) {
    if (columns === undefined) {
      columns = readHeader(record);
    } else if ('fault' in record) {
      faults.push({ line: record.line, url: '', reason: record.fault });
    } else {
      const url = record.fields[columns.url]?.trim() ?? '';
      const label = record.fields[columns.label]?.trim() ?? '';
      if (url === '' || label === '') {
        faults.push({ line: record.line, url, reason: `the ${url === '' ? 'url' : 'label'} is missing.` });
      } else rows.push({ line: record.line, url, label });
    }
  }
  if (columns === undefined) throw bad('The manifest is empty; its first line must be url,label.');
  if (rows.length + faults.length === 0) {
    throw bad('The manifest has a header but no lines; list one photo a line: its url and its label.');
  }
  return { rows, faults };
}

interface Columns {
  url: number;
  label: number;
}

type CsvRecord = { line: number; fields: string[] } | { line: number; fault: string };

function decodeText(bytes: Uint8Array): string {
  try {
    // The decoder drops a byte-order mark.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new DandelionError('bad-manifest', 'The manifest is not UTF-8 text; save it as "CSV UTF-8".', {
      cause: error,
    });
  }
}

function readHeader(record: CsvRecord): Columns {
  const names = 'fault' in record ? [] : record.fields.map((field) => field.trim().toLowerCase());
  const columns = { url: names.indexOf('url'), label: names.indexOf('label') };
  const shown = 'fault' in record ? record.fault : `it is "${names.join(',').slice(0, 100)}"`;
  if (columns.url < 0 || columns.label < 0) {
    throw bad(`The first line of the manifest must be the header url,label, with commas; ${shown}`);
  }
  if (names.lastIndexOf('url') !== columns.url || names.lastIndexOf('label') !== columns.label) {
    throw bad('The header of the manifest names url or label twice; each must be there once.');
  }
  return columns;
}

/** Splits lines into records; after a broken record it starts again on the next line, so nothing else is lost. */
function* readRecords(lines: readonly string[]): Iterable<CsvRecord> {
  const text = Buffer.from(lines.join('\n'));
  const offsets = lineOffsets(text);
  let next = nextFilled(lines, 0);
  for (let broken = 0; next < lines.length; broken++) {
    if (broken > MAX_BROKEN_RECORDS) {
      throw bad(`The manifest has more than ${MAX_BROKEN_RECORDS} lines with broken quotes; is it CSV?`);
    }
    const from = next;
    const { records, fault } = parseUntilFault(text.subarray(offsets[from]));
    for (const { fields, lastLine } of records) {
      yield { line: next + 1, fields };
      next = nextFilled(lines, from + lastLine);
    }
    if (fault === undefined) return;
    yield { line: next + 1, fault };
    next = nextFilled(lines, next + 1);
  }
}

/** Where each line starts, in bytes. */
function lineOffsets(text: Buffer): number[] {
  const offsets = [0];
  for (let at = text.indexOf(10); at >= 0; at = text.indexOf(10, at + 1)) offsets.push(at + 1);
  return offsets;
}

/** The first line from `index` on that the parser does not skip as blank. */
function nextFilled(lines: readonly string[], index: number): number {
  let next = index;
  while (next < lines.length && lines[next] === '') next += 1;
  return next;
}

function parseUntilFault(text: Buffer): {
  records: { fields: string[]; lastLine: number }[];
  fault: string | undefined;
} {
  const records: { fields: string[]; lastLine: number }[] = [];
  try {
    parse(text, {
      record_delimiter: '\n',
      relax_column_count: true,
      skip_empty_lines: true,
      max_record_size: MAX_RECORD_BYTES,
      on_record: (fields: string[], { lines }: { lines: number }) => {
        records.push({ fields, lastLine: lines });
        return null;
      },
    });
    return { records, fault: undefined };
  } catch (error) {
    const fault = faultSentences[errorCodeOf(error)];
    if (fault === undefined) throw error;
    return { records, fault };
  }
}

const faultSentences: Record<string, string> = {
  CSV_QUOTE_NOT_CLOSED: 'a quote is opened and never closed.',
  CSV_MAX_RECORD_SIZE: 'a quote is opened and never closed, or the line is too long.',
  CSV_INVALID_CLOSING_QUOTE: 'there is text after a closing quote; write a quote inside a field twice.',
  INVALID_OPENING_QUOTE:
    'a quote stands inside a field; put the whole field in quotes and write the quote twice.',
};

function bad(sentence: string): DandelionError {
  return new DandelionError('bad-manifest', sentence);
}
