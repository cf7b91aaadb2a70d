import sharp from 'sharp';

/**
 * A small square JPEG of a whole photo, its edges filled with grey; what is damaged in the photo stays visible.
 *
 * @param side in pixels
 */
export function thumbnail(bytes: Uint8Array, side: number): Promise<Buffer> {
  return sharp(bytes, { autoOrient: true, failOn: 'none' })
    .resize(side, side, { fit: 'contain', background: '#f0f0f0' })
    .flatten({ background: '#ffffff' })
    .jpeg({ quality: 80 })
    .toBuffer();
}
