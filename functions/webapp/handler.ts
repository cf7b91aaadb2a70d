import { join } from 'node:path';
import { DandelionError } from '../../shared/errors.ts';
import type { FunctionContext, FunctionEvent, InitContext } from '../../shared/function/types.ts';
import { type Asset, createAsset, isFresh, readAssets } from './assets.ts';
import { foreignOrigins, type PageConfig, readPageConfig } from './config.ts';

/** A page for everyone who can reach it; what it calls guards itself. */
export const open = true;

let assets: ReadonlyMap<string, Asset> = new Map();
let contentSecurityPolicy = '';

/** Reads the page's files and settings, once: beside this file from source, beside the bundle when built. */
export async function init({ env }: InitContext): Promise<void> {
  const config = readPageConfig(env);
  const files = await readAssets(join(import.meta.dirname, 'static'));
  const configJson = createAsset(Buffer.from(JSON.stringify(config)), 'application/json');
  assets = new Map([...files, ['/config.json', configJson]]);
  contentSecurityPolicy = contentSecurityPolicyOf(config);
}

/**
 * Serves the page: its files and `/config.json`. HEAD is answered like GET, Node's server leaves the body out.
 *
 * @throws DandelionError `method-not-allowed` unless GET or HEAD, `not-found` for any other path
 */
export function handler(event: FunctionEvent, context: FunctionContext): Buffer | undefined {
  if (event.method !== 'GET' && event.method !== 'HEAD') {
    context.headers({ allow: 'GET, HEAD' });
    throw new DandelionError('method-not-allowed', `The page is only read: use GET, not ${event.method}.`);
  }
  const asset = assets.get(event.path);
  if (asset === undefined) {
    throw new DandelionError('not-found', `The page has no file ${event.path}; start at "/".`);
  }
  // Names carry no digest, so a browser may keep a file but asks each time whether it still holds.
  context.headers({ etag: asset.etag, 'cache-control': 'no-cache', ...securityHeaders() });
  if (isFresh(event.headers['if-none-match'], asset.etag)) {
    context.status(304);
    return undefined;
  }
  context.headers({ 'content-type': asset.mediaType });
  return asset.bytes;
}

function securityHeaders(): Record<string, string> {
  return {
    'content-security-policy': contentSecurityPolicy,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-opener-policy': 'same-origin',
  };
}

/** Own scripts and styles only; `blob:` is how the page shows the photo before it is sent. */
function contentSecurityPolicyOf(config: PageConfig): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    ["connect-src 'self'", ...foreignOrigins(config)].join(' '),
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join('; ');
}
