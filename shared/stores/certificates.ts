/** OpenSSL's names of a certificate whose time has not come or is over. */
const outOfTime = /^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/;
/** Node's and OpenSSL's names of everything else that can be wrong with one. */
const untrusted = /^(CERT_|ERR_TLS_|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET))/;

/**
 * Says what is wrong with a server's certificate, and the cure.
 *
 * @param code of the error that the connection ended with
 * @param why its message
 * @returns the end of a sentence that begins with the server; undefined when it is no fault of a certificate
 */
export function certificateFault(code: string, why: string): string | undefined {
  if (outOfTime.test(code)) {
    return 'has a certificate that is not valid now: renew it, or set the clock of this machine';
  }
  if (!untrusted.test(code)) return undefined;
  const cure = 'use one of a known authority for that name, or name its authority in NODE_EXTRA_CA_CERTS';
  return `has a certificate that is not trusted (${why}): ${cure}`;
}
