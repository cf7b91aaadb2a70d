import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Certificate {
  key: string;
  cert: string;
}

/** A certificate for 127.0.0.1 that signs itself; with negative days it has expired. */
export function makeCertificate(days: number): Certificate {
  const folder = mkdtempSync(join(tmpdir(), 'dandelion-certificate-'));
  const [key, request, certificate] = ['key.pem', 'request.pem', 'certificate.pem'].map((n) =>
    join(folder, n),
  );
  const openssl = (...words: (string | undefined)[]) =>
    execFileSync('openssl', words.map(String), { stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    const name = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
    openssl('req', ...curve, '-keyout', key, '-out', request, ...name);
    const copy = ['-copy_extensions', 'copy', '-days', String(days)];
    openssl('x509', '-req', '-in', request, '-signkey', key, '-out', certificate, ...copy);
    return { key: readFileSync(String(key), 'utf8'), cert: readFileSync(String(certificate), 'utf8') };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
