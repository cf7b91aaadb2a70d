import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Keeps account of the connections on which nothing was ever sent. Browsers and pools open such connections in
 * advance; Node does not count them as idle, and so they would hold a stop up until they time out.
 */
export function trackUnusedConnections(server: Server): { close(): void } {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return {
    close() {
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
    },
  };
}
