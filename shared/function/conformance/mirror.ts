import type { Event } from '../../events.ts';
import type { FunctionModule } from '../types.ts';

/** What a received event is sent back as: the same, but for id and source. */
export const MIRROR_SOURCE = '/tests/mirror';

/** A function that answers every event with that event: what it read is what it writes. */
export const mirror: FunctionModule = {
  batch: true,
  handler({ cloudEvent }) {
    if (cloudEvent === undefined) return 'no event';
    return { ...cloudEvent, id: `mirror-of-${cloudEvent.id.length}`, source: MIRROR_SOURCE };
  },
};

/** The attributes every event has. */
export const REQUIRED = { specversion: '1.0', id: '1', source: '/s', type: 't' } as const;
export const REQUIRED_HEADERS = {
  ...{ 'ce-specversion': '1.0', 'ce-id': '1' },
  ...{ 'ce-source': '/s', 'ce-type': 't' },
};

/** Events that any two implementations must read alike, in both modes. */
export const exchanged: [string, Event][] = [
  ['no data', { ...REQUIRED }],
  [
    'a JSON object',
    { ...REQUIRED, datacontenttype: 'application/json', data: { a: [1, 'é', null], b: { c: true } } },
  ],
  ['JSON of a vendor', { ...REQUIRED, datacontenttype: 'application/vnd.flowers+json', data: { a: 1 } }],
  ['text', { ...REQUIRED, datacontenttype: 'text/plain', data: 'grün 🌼' }],
  [
    'bytes',
    { ...REQUIRED, datacontenttype: 'application/octet-stream', data: Buffer.from([0, 1, 127, 128, 255]) },
  ],
  [
    'all optional attributes',
    {
      ...REQUIRED,
      ...{ subject: 'v1', time: '2026-11-23T10:00:00Z', dataschema: 'https://schemas.test/a#b' },
      ...{ datacontenttype: 'application/json', data: {} },
    },
  ],
  [
    'text of all kinds in attributes',
    { ...REQUIRED, subject: 'Euro € 😀 "quoted" 100% a,b;c=d', comment: '日本語' },
  ],
  [
    'extensions',
    { ...REQUIRED, traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`, partitionkey: 'a b' },
  ],
  ['a relative source', { ...REQUIRED, source: '#fragment' }],
  ['an URN as a source', { ...REQUIRED, source: 'urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66' }],
];
