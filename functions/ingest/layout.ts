import type { FaultyEntry, PhotoEntry } from './entries.ts';

/** Files that systems and people leave beside photos; they are passed over in silence. */
const ignoredNames = /^(\..*|thumbs\.db|desktop\.ini|__macosx|(readme|licen[cs]e|notice|copying)(\..*)?)$/i;
const photoNames = /\.(jpe?g|jpe|jfif|png|webp|avif|gif|heic|heif|tiff?|bmp)$/i;

/** True for a path with a part that is hidden or known not to be a photo. */
export function isIgnored(parts: readonly string[]): boolean {
  return parts.some((part) => ignoredNames.test(part));
}

/** Finds how many folders wrap the class folders, from the paths of all files. */
export interface LayoutFinder {
  note(parts: readonly string[]): void;
  /** Folders to pass before the class folders: 0 unless all photos lie below one common folder. */
  wrappingFolders(): number;
}

/** The layout is "a folder a class"; archives often have one more folder around it. */
export function findLayout(): LayoutFinder {
  let common: readonly string[] | undefined;
  let fewestFolders = Number.POSITIVE_INFINITY;
  return {
    note(parts) {
      if (!photoNames.test(parts.at(-1) ?? '')) return;
      const folders = parts.slice(0, -1);
      fewestFolders = Math.min(fewestFolders, folders.length);
      common = common === undefined ? folders : sharedStart(common, folders);
    },
    wrappingFolders() {
      // The innermost folder that holds a photo is its class, even if it is the only one.
      return common === undefined ? 0 : Math.max(0, Math.min(common.length, fewestFolders - 1));
    },
  };
}

function sharedStart(a: readonly string[], b: readonly string[]): string[] {
  const end = a.findIndex((part, index) => part !== b[index]);
  return a.slice(0, end < 0 ? a.length : end);
}

/** The entry of a file: its class is the folder below the wrapping ones, however deep the file lies in it. */
export function entryAt(
  parts: readonly string[],
  wrapping: number,
  open: () => Promise<Uint8Array>,
): PhotoEntry | FaultyEntry {
  const source = parts.join('/');
  const label = parts[wrapping];
  if (label !== undefined && parts.length > wrapping + 1) return { kind: 'photo', source, label, open };
  const reason = 'The file lies beside the class folders; move it into a folder named after its class.';
  return { kind: 'fault', source, code: 'bad-label', reason };
}
