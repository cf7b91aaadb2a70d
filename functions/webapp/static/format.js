const percent = new Intl.NumberFormat('en', { style: 'percent', maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat('en');

/**
 * A share from 0 to 1 as a percentage. Rounding never claims certainty: 0.9997 is "> 99.9%", not "100%".
 *
 * @param {number} share
 */
export function formatShare(share) {
  if (share > 0.999 && share < 1) return '> 99.9%';
  if (share > 0 && share < 0.001) return '< 0.1%';
  return percent.format(share);
}

/** @param {number} count */
export function formatCount(count) {
  return whole.format(count);
}

/**
 * @param {number} durationMs
 * @returns {string} "8 ms", "4.2 s", "38 s" or "2 min 13 s"
 */
export function formatDuration(durationMs) {
  if (durationMs < 1000) return `${Math.max(1, Math.round(durationMs))} ms`;
  if (durationMs < 9950) return `${(durationMs / 1000).toFixed(1)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 60) return `${seconds} s`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** @param {number} sizeBytes */
export function formatSize(sizeBytes) {
  if (sizeBytes < 1_000_000) return `${Math.max(1, Math.round(sizeBytes / 1000))} kB`;
  return `${(sizeBytes / 1_000_000).toFixed(1)} MB`;
}
