import { byId } from './dom.js';

/**
 * Every way a photo gets onto the page: picked, taken, dropped anywhere, pasted.
 *
 * @param {(files: File[]) => void} onFiles
 * @param {(text: string) => void} onHint called when something was dropped or pasted that holds no file
 */
export function listenForPhotos(onFiles, onHint) {
  if (navigator.maxTouchPoints > 0) inviteTouch();
  fromInput('choose', 'choose-input', onFiles);
  fromInput('take', 'take-input', onFiles);
  byId('drop', HTMLElement).addEventListener('click', (event) => {
    if (event.target instanceof Element && event.target.closest('button, a, input') !== null) return;
    byId('choose-input', HTMLInputElement).click();
  });
  fromDrop(onFiles, onHint);
  document.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) onFiles(files);
    else onHint('There is no photo on the clipboard. Copy the picture itself, not its address.');
  });
}

/** Fingers neither drop nor paste, but what they hold has a camera. */
function inviteTouch() {
  byId('take', HTMLElement).hidden = false;
  byId('invitation', HTMLElement).textContent = 'Show me a photo';
  byId('invitation-more', HTMLElement).textContent = 'from your gallery or straight from the camera';
}

/**
 * @param {string} buttonId
 * @param {string} inputId
 * @param {(files: File[]) => void} onFiles
 */
function fromInput(buttonId, inputId, onFiles) {
  const input = byId(inputId, HTMLInputElement);
  byId(buttonId, HTMLButtonElement).addEventListener('click', () => input.click());
  input.addEventListener('change', () => {
    const files = [...(input.files ?? [])];
    // Emptied, so that choosing the same file again counts as a change.
    input.value = '';
    if (files.length > 0) onFiles(files);
  });
}

/**
 * @param {(files: File[]) => void} onFiles
 * @param {(text: string) => void} onHint
 */
function fromDrop(onFiles, onHint) {
  const over = (/** @type {boolean} */ yes) => document.documentElement.classList.toggle('dragging', yes);
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    if (event.dataTransfer !== null) event.dataTransfer.dropEffect = 'copy';
    over(true);
  });
  document.addEventListener('dragleave', (event) => {
    // Also fired between elements; only leaving the window has nowhere to go.
    if (event.relatedTarget === null) over(false);
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    over(false);
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length > 0) onFiles(files);
    else onHint('That was no file. Save the picture first, then drop the file.');
  });
}
