/** A share as percent with one decimal, as `98.5 %`. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
