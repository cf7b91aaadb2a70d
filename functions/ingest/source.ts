import { digestOf, type ImageSource, trainingLabel } from '../../shared/events.ts';
import { openArchive } from './archive.ts';
import type { FaultyEntry, OpenSource, PhotoEntry, SourceAccess, SourceEntry } from './entries.ts';
import { openFolder } from './folder.ts';
import { openManifest } from './manifest.ts';

/**
 * Opens a manifest, a folder or an archive.
 *
 * @throws DandelionError `bad-manifest`, `bad-folder`, `bad-archive`, `forbidden`, or what downloading the
 *   source itself throws
 */
export async function openSource(source: ImageSource, access: SourceAccess): Promise<OpenSource> {
  const opened = await openers[source.kind](source.uri, access);
  return { ...opened, entries: checked(opened.entries) };
}

const openers = { manifest: openManifest, folder: openFolder, archive: openArchive };

/** PostgreSQL indexes no text beyond some 2700 bytes, and no source of photos needs it. */
const LONGEST_SOURCE_BYTES = 2000;

/** What holds for every kind of source: names that can be stored, labels that can be used. */
async function* checked(entries: AsyncIterable<SourceEntry>): AsyncIterable<SourceEntry> {
  for await (const entry of entries) {
    const source = storable(entry.source);
    if (entry.kind === 'fault') yield { ...entry, source };
    else if (source !== entry.source) {
      const reason = `The name is longer than ${LONGEST_SOURCE_BYTES} bytes or has control characters.`;
      yield { kind: 'fault', source, code: 'bad-data', reason };
    } else {
      const label = trainingLabel.safeParse(entry.label);
      if (label.success) yield entry;
      else yield badLabel(entry, label.error.issues[0]?.message);
    }
  }
}

function badLabel({ source, label }: PhotoEntry, why: string | undefined): FaultyEntry {
  const shown = label.length > 80 ? `${label.slice(0, 80)}…` : label;
  const reason = `The label "${storable(shown)}" is not allowed: ${why}.`;
  return { kind: 'fault', source, code: 'bad-label', reason };
}

function storable(source: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: PostgreSQL refuses NUL, terminals obey the others
  const plain = source.replace(/[\0-\x1f\x7f]/g, '\ufffd').toWellFormed();
  if (Buffer.byteLength(plain) <= LONGEST_SOURCE_BYTES) return plain;
  return `${plain.slice(0, 400)}… (${digestOf(source).slice(0, 8)})`;
}
