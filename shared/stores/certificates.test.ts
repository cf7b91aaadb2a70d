import { once } from 'node:events';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { getCACertificates, setDefaultCACertificates, TLSSocket } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { openDatabase } from './database.ts';
import { openMlflowClient } from './mlflow-client.ts';
import { openObjects } from './objects.ts';
import { type Certificate, makeCertificate } from './testing-certificate.ts';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function listening(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closers.push(() => void server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const https = (certificate: Certificate) =>
  createHttpsServer(certificate, (_request, response) => response.end());

/** Agrees to TLS, as PostgreSQL does; nobody who does not trust it says more. */
const postgres = (certificate: Certificate) =>
  createServer((socket) => {
    socket.once('data', () => {
      socket.write('S');
      new TLSSocket(socket, { isServer: true, ...certificate }).on('error', () => {});
    });
    socket.on('error', () => {});
  });

const keys = { AWS_ACCESS_KEY_ID: 'me', AWS_SECRET_ACCESS_KEY: 'secret' };

describe.each([
  {
    server: 'S3',
    code: 'certificate-invalid',
    serve: https,
    use: (place: string) => openObjects({ S3_ENDPOINT: `https://${place}`, ...keys }).get('a'),
  },
  {
    server: 'MLflow',
    code: 'certificate-invalid',
    serve: https,
    use: (place: string) =>
      openMlflowClient({ MLFLOW_TRACKING_URI: `https://${place}` }).findExperiment('plants'),
  },
  {
    server: 'PostgreSQL',
    code: 'database-untrusted',
    serve: postgres,
    use: (place: string) => openDatabase(`postgres://me:secret@${place}/plants?sslmode=verify-full`),
  },
])('the certificate of $server', ({ code, serve, use }) => {
  it.each([
    ['expired', -1, true, /not valid now.*renew/],
    ['of nobody known', 30, false, /not trusted.*NODE_EXTRA_CA_CERTS/],
  ])('that is %s is told by name, with the cure', async (_what, days, isTrusted, cure) => {
    const made = makeCertificate(days);
    const trusted = getCACertificates('default');
    closers.push(() => setDefaultCACertificates(trusted));
    if (isTrusted) setDefaultCACertificates([...trusted, made.cert]);
    const place = await listening(serve(made));
    const error = await use(place).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code, status: 503, message: expect.stringMatching(cure) });
    expect(error).toMatchObject({ message: expect.stringContaining(place) });
  });
});
