import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ObjectStore } from './objects.ts';

/** What every object store keeps to, whatever it stands on. `open` gives one that holds nothing, and may be called again. */
export function describeObjectStore(title: string, open: () => Promise<ObjectStore>): void {
  describe(title, () => {
    let objects: ObjectStore;
    beforeAll(async () => {
      objects = await open();
    });
    const keysOf = async (prefix: string) => {
      const found: string[] = [];
      for await (const { key } of objects.list(prefix)) found.push(key);
      return found.sort();
    };

    it('gives back what was put, with its digest', async () => {
      const { digest } = await objects.put('images/a', Buffer.from('hello'));
      expect(digest).toBe('2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824');
      expect((await objects.get('images/a')).bytes.toString()).toBe('hello');
      expect(await objects.head('images/a')).toEqual({ sizeBytes: 5 });
      await objects.put('images/a', Buffer.from('hello again'));
      expect((await objects.get('images/a')).bytes.toString()).toBe('hello again');
    });

    it('keeps an empty object', async () => {
      await objects.put('images/empty', Buffer.alloc(0));
      expect((await objects.get('images/empty')).bytes).toHaveLength(0);
      expect(await objects.head('images/empty')).toEqual({ sizeBytes: 0 });
    });

    it('says which object is missing', async () => {
      const missing = { code: 'object-missing', message: expect.stringContaining('images/none') };
      await expect(objects.get('images/none')).rejects.toMatchObject(missing);
      await expect(objects.getStream('images/none')).rejects.toMatchObject(missing);
      expect(await objects.head('images/none')).toBeUndefined();
      await objects.put('images/below', Buffer.from('no folder'));
      await expect(objects.get('images/below/none')).rejects.toMatchObject({ code: 'object-missing' });
      await expect(objects.getStream('images/below/none')).rejects.toMatchObject({ code: 'object-missing' });
      expect(await objects.head('images/below/none')).toBeUndefined();
    });

    it('takes the names that people give their photos', async () => {
      const key = 'incoming/Löwenzahn & Co/IMG 1 (2)+#100%?.jpg';
      await objects.put(key, Buffer.from('photo'));
      expect((await objects.get(key)).bytes.toString()).toBe('photo');
      expect(await keysOf('incoming/')).toEqual([key]);
    });

    it('lists by prefix and forgets what was deleted', async () => {
      await objects.put('list/b/1', Buffer.from('1'));
      await objects.put('list/b/2', Buffer.from('22'));
      await objects.put('list/c', Buffer.from('3'));
      expect(await keysOf('list/b')).toEqual(['list/b/1', 'list/b/2']);
      expect(await keysOf('list/')).toEqual(['list/b/1', 'list/b/2', 'list/c']);
      expect(await keysOf('list/none/')).toEqual([]);
      await objects.delete('list/b/1');
      await objects.delete('list/b/1');
      expect(await keysOf('list/b')).toEqual(['list/b/2']);
    });

    it('lists more objects than a page holds', async () => {
      const keys = Array.from({ length: 1050 }, (_, index) => `many/${String(index).padStart(4, '0')}`);
      const left = [...keys];
      const put = async () => {
        for (let key = left.pop(); key !== undefined; key = left.pop())
          await objects.put(key, Buffer.from('x'));
      };
      await Promise.all(Array.from({ length: 16 }, put));
      expect(await keysOf('many/')).toEqual(keys);
    });

    it.each([
      '../secret',
      '/etc/passwd',
      'a/../../b',
      'a//b',
      '',
      'a/',
      'a/.hidden',
      'a\\b',
      'a\u0000',
      'x'.repeat(1025),
    ])('refuses the key %j', async (key) => {
      const refused = { code: 'bad-request' };
      await expect(objects.put(key, Buffer.from('x'))).rejects.toMatchObject(refused);
      await expect(objects.get(key)).rejects.toMatchObject(refused);
      await expect(objects.putIf(key, Buffer.from('x'), { etag: null })).rejects.toMatchObject(refused);
    });

    it('streams a large object up and down', async () => {
      const parts = Array.from({ length: 5 }, () => randomBytes(8 * 1024 * 1024));
      const { digest, sizeBytes } = await objects.putStream('stream/large', Readable.from(parts));
      expect(sizeBytes).toBe(5 * 8 * 1024 * 1024);
      const hash = createHash('sha256');
      for (const part of parts) hash.update(part);
      expect(digest).toBe(hash.digest('hex'));
      expect(await objects.head('stream/large')).toEqual({ sizeBytes });
      const back = createHash('sha256');
      for await (const chunk of await objects.getStream('stream/large')) back.update(chunk);
      expect(back.digest('hex')).toBe(digest);
      const { bytes } = await objects.get('stream/large');
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(digest);
    });

    it('streams an empty and a small object', async () => {
      await objects.putStream('stream/empty', Readable.from([]));
      await objects.putStream('stream/small', Readable.from([Buffer.from('a'), Buffer.from('b')]));
      expect((await objects.get('stream/empty')).bytes).toHaveLength(0);
      expect((await objects.get('stream/small')).bytes.toString()).toBe('ab');
    });

    it('leaves nothing of a stream that fails, and throws what failed', async () => {
      const source = async function* () {
        for (let part = 0; part < 4; part++) yield randomBytes(8 * 1024 * 1024);
        throw new Error('the download broke off');
      };
      await expect(objects.putStream('stream/broken', source())).rejects.toThrow('the download broke off');
      expect(await objects.head('stream/broken')).toBeUndefined();
    });

    it('stops a stream when the signal aborts', async () => {
      const stop = new AbortController();
      const source = async function* () {
        yield randomBytes(20 * 1024 * 1024);
        stop.abort(new Error('enough'));
        yield randomBytes(20 * 1024 * 1024);
      };
      const streamed = objects.putStream('stream/stopped', source(), { signal: stop.signal });
      await expect(streamed).rejects.toThrow('enough');
      expect(await objects.head('stream/stopped')).toBeUndefined();
    });

    it('lets a reader leave a stream half way', async () => {
      const stream = await objects.getStream('stream/large');
      for await (const _chunk of stream) break;
      expect(stream.destroyed).toBe(true);
      expect(await objects.head('stream/large')).toBeDefined();
    });

    it('lets one of many racing writers create a pointer', async () => {
      const writer = (number: number) => Buffer.from(`writer ${number}`);
      const outcomes = await Promise.all(
        Array.from({ length: 8 }, (_, number) => objects.putIf('pointer', writer(number), { etag: null })),
      );
      expect(outcomes.filter(({ won }) => won)).toHaveLength(1);
      const winner = outcomes.findIndex(({ won }) => won);
      const { bytes, etag } = await objects.get('pointer');
      expect(bytes.toString()).toBe(`writer ${winner}`);
      expect(outcomes[winner]?.etag).toBe(etag);
    });

    it('lets one of many racing writers move a pointer', async () => {
      for (let round = 0; round < 5; round++) {
        const { etag } = await objects.get('pointer');
        const outcomes = await Promise.all(
          Array.from({ length: 8 }, (_, number) =>
            objects.putIf('pointer', Buffer.from(`round ${round}, ${number}`), { etag }),
          ),
        );
        expect(outcomes.filter(({ won }) => won)).toHaveLength(1);
        const winner = outcomes.findIndex(({ won }) => won);
        expect((await objects.get('pointer')).bytes.toString()).toBe(`round ${round}, ${winner}`);
      }
    });

    it('moves a pointer only for who saw its present value', async () => {
      const { etag } = await objects.get('pointer');
      expect((await objects.putIf('pointer', Buffer.from('second'), { etag })).won).toBe(true);
      const late = await objects.putIf('pointer', Buffer.from('third'), { etag });
      const now = await objects.get('pointer');
      expect(late).toEqual({ won: false, etag: now.etag });
      expect(now.bytes.toString()).toBe('second');
    });

    it('counts a write as won when a repeat of it finds it standing', async () => {
      const bytes = Buffer.from('written once, sent twice');
      await objects.putIf('repeated', bytes, { etag: null });
      const again = await objects.putIf('repeated', bytes, { etag: null });
      expect(again).toEqual({ won: true, etag: (await objects.get('repeated')).etag });
    });

    it('moves no pointer that was deleted meanwhile', async () => {
      const { etag } = await objects.get('pointer');
      await objects.delete('pointer');
      expect(await objects.putIf('pointer', Buffer.from('late'), { etag })).toEqual({
        won: false,
        etag: undefined,
      });
      expect(await objects.head('pointer')).toBeUndefined();
    });
  });
}
