import { byId, element } from './dom.js';

/**
 * A switch that lays over the photo where the model looked.
 *
 * @param {{ label: string, overlay: string }} explanation
 */
export function explanationSwitch({ label, overlay }) {
  const button = element(
    'button',
    { type: 'button', class: 'button', 'aria-pressed': 'false' },
    'Where it looked',
  );
  const note = element('p', { class: 'quiet', hidden: '' }, `Red: what speaks for ${label}.`);
  button.addEventListener('click', () => {
    const shown = removeOverlay();
    if (!shown) addOverlay(overlay);
    button.setAttribute('aria-pressed', String(!shown));
    note.hidden = shown;
  });
  return element('div', { class: 'explanation' }, button, note);
}

/** @returns {boolean} whether there was one */
function removeOverlay() {
  const standing = byId('photo', HTMLElement).querySelector('.photo-heat');
  standing?.remove();
  return standing !== null;
}

/** @param {string} overlay */
function addOverlay(overlay) {
  const figure = byId('photo', HTMLElement);
  const photo = figure.querySelector('.photo-sharp');
  if (!(photo instanceof HTMLImageElement)) return;
  const { naturalWidth: width, naturalHeight: height } = photo;
  const side = Math.min(width, height);
  const heat = element('img', { src: overlay, alt: '', class: 'photo-heat' });
  // The model looks at the square in the middle of the photo.
  heat.style.setProperty('--of-width', String(side / width));
  heat.style.setProperty('--of-height', String(side / height));
  photo.after(heat);
}
