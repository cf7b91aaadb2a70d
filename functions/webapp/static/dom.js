/**
 * Builds an element. Children that are strings become text, never markup.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * The element of the page with this id.
 *
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind the class it is expected to be of
 * @returns {Kind}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return found;
}

/**
 * A horizontal bar that fills by a share from 0 to 1. It is decoration: the number stands beside it as text.
 *
 * @param {number} share
 */
export function bar(share) {
  const fill = element('span', { class: 'bar-fill' });
  fill.style.setProperty('--share', String(Math.min(1, Math.max(0, share))));
  return element('span', { class: 'bar', 'aria-hidden': 'true' }, fill);
}
