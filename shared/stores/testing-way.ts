import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { Transform } from 'node:stream';

/** A way to a real server that can be cut off, as by a server that is killed, and opened again. */
export interface Way {
  /** The server's address with this way's host and port. */
  url: string;
  /** Breaks every connection, whatever is on it; new ones get through. */
  cut(): void;
  /** Breaks every connection and refuses new ones, until it is opened again. */
  shut(): Promise<void>;
  /** Takes connections and bytes, and hands none on: a server, or a network, that hangs. */
  stall(): void;
  /** Ends that, and {@link shut}. */
  open(): Promise<void>;
  close(): Promise<void>;
}

const usualPorts: Record<string, number> = { 'http:': 80, 'postgres:': 5432, 'postgresql:': 5432 };

/** Opens a way to the server of an address, by TCP: `http` and `postgres` alike. */
export async function openWay(serverUrl: string): Promise<Way> {
  const url = new URL(serverUrl);
  const target = { host: url.hostname, port: Number(url.port || usualPorts[url.protocol]) };
  const sockets = new Set<Socket>();
  let gate = openGate();
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const listen = async (port: number): Promise<Server> => {
    const server = createServer((near) => join(near, connect(target), sockets, () => gate)).listen(
      port,
      '127.0.0.1',
    );
    await once(server, 'listening');
    return server;
  };
  let server: Server | undefined = await listen(0);
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const shut = async () => {
    const closing = server;
    server = undefined;
    closing?.close();
    cut();
    if (closing !== undefined) await once(closing, 'close');
  };
  url.hostname = '127.0.0.1';
  url.port = String(port);
  return {
    url: url.href.replace(/\/$/, ''),
    cut,
    shut,
    stall() {
      gate = closedGate();
    },
    async open() {
      gate.open();
      gate = openGate();
      server ??= await listen(port);
    },
    close: shut,
  };
}

/** Lets bytes through once it is open. */
interface Gate {
  isOpen: boolean;
  opened: Promise<void>;
  open(): void;
}

function closedGate(): Gate {
  const { promise, resolve } = Promise.withResolvers<void>();
  const gate: Gate = {
    isOpen: false,
    opened: promise,
    open() {
      gate.isOpen = true;
      resolve();
    },
  };
  return gate;
}

function openGate(): Gate {
  const gate = closedGate();
  gate.open();
  return gate;
}

/** What comes on one goes out on the other; they end together. */
function join(near: Socket, far: Socket, sockets: Set<Socket>, gate: () => Gate): void {
  for (const socket of [near, far]) {
    sockets.add(socket);
    socket.setNoDelay();
    socket.on('error', () => {});
    socket.on('close', () => {
      sockets.delete(socket);
      near.destroy();
      far.destroy();
    });
  }
  const through = () =>
    new Transform({
      transform(chunk, _encoding, done) {
        const { isOpen, opened } = gate();
        if (isOpen) done(null, chunk);
        else void opened.then(() => done(null, chunk));
      },
    });
  near.pipe(through()).pipe(far);
  far.pipe(through()).pipe(near);
}
