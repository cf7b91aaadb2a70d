import { Socket } from 'node:net';

/** What the driver hands to a maker of sockets, as far as it is needed here. */
interface Target {
  host: string[];
  port: number[];
  path?: string | undefined;
}

/** Ends when nothing has come or gone for the time that was set. */
class ImpatientSocket extends Socket {
  /** Not by a listener: the driver takes all of them away when it wraps a socket in TLS. */
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    if (event === 'timeout') this.destroy();
    return super.emit(event as string, ...values);
  }
}

/**
 * Makes the sockets of a pool, each of which is given up when nothing moves on it for so long; what waits there fails as
 * on a connection that is closed. The server's own time limits do not help where it is the server that hangs, or the
 * network in between, and the driver has none.
 *
 * @param silentForMs longer than the pool tries to connect, and than it keeps an unused connection
 * @returns for the driver's option `socket`
 */
export function impatientSockets(silentForMs: number): (target: Target) => Socket {
  // As the driver: hosts take turns, so that another one is tried after one that does not answer.
  let turn = 0;
  return ({ host, port, path }) => {
    const socket = new ImpatientSocket().setTimeout(silentForMs);
    if (path) return socket.connect(path);
    const at = turn++ % host.length;
    const place = { host: host[at] ?? '', port: port[at] ?? 0 };
    // The driver checks certificates and words its errors by them.
    return Object.assign(socket.connect(place), place);
  };
}
