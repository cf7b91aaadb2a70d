import sharp, { type Sharp } from 'sharp';
import { type Random, seededRandom } from './random.ts';

/** The classes that can be drawn; each is a plausible scene, none is told apart by one colour alone. */
export const drawnClasses = ['dandelion', 'grass', 'daisy', 'tulip', 'clover'] as const;
export type DrawnClass = (typeof drawnClasses)[number];

export interface DrawOptions {
  /** Pixels; default 400. */
  width?: number;
  /** Pixels; default 300. */
  height?: number;
  /** Default `jpeg`. */
  format?: 'jpeg' | 'png' | 'webp' | 'avif' | 'gif';
}

/** Scenes are laid out on this canvas and scaled to the size asked for. */
const canvas = { width: 400, height: 300 };

/**
 * Draws a photo-like image of a class: for tests and demonstrations that must not carry real photographs.
 *
 * Scene, number and size of the flowers, hues, light, blur, sensor noise and JPEG quality vary with the seed.
 * The same label, seed and options give the same bytes on one platform.
 *
 * @returns the encoded file
 */
export async function drawPhoto(
  label: DrawnClass,
  seed: number,
  { width = canvas.width, height = canvas.height, format = 'jpeg' }: DrawOptions = {},
): Promise<Buffer> {
  const random = seededRandom(seed * drawnClasses.length + drawnClasses.indexOf(label));
  const scene = drawScene(label, random);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"
    viewBox="0 0 ${canvas.width} ${canvas.height}" preserveAspectRatio="xMidYMid slice">${scene}</svg>`;
  const blur = (random() < 0.3 ? between(random, 0.4, 0.9) : 0) * (width / canvas.width);
  const rendered = sharp(Buffer.from(svg)).flatten({ background: '#4a6b2a' });
  // sharp takes no smaller blur, and none would be seen.
  if (blur >= 0.3) rendered.blur(blur);
  const pixels = await rendered.toColourspace('srgb').raw().toBuffer();
  photograph(pixels, width, height, random);
  const image = sharp(pixels, { raw: { width, height, channels: 3 } });
  return encode(image, format, Math.round(between(random, 72, 94)));
}

function encode(image: Sharp, format: NonNullable<DrawOptions['format']>, quality: number) {
  switch (format) {
    case 'jpeg':
      return image.jpeg({ quality }).toBuffer();
    case 'png':
      return image.png({ compressionLevel: 3 }).toBuffer();
    case 'webp':
      return image.webp({ quality, effort: 1 }).toBuffer();
    case 'avif':
      return image.avif({ quality: 60, effort: 0 }).toBuffer();
    case 'gif':
      return image.gif({ effort: 1 }).toBuffer();
  }
}

function drawScene(label: DrawnClass, random: Random): string {
  const green = between(random, 75, 115);
  const horizon = random() < 0.35 ? between(random, 40, 120) : 0;
  const parts = [drawGround(random, green, horizon), drawBlades(random, green, horizon, 90)];
  if (label !== 'grass') parts.push(drawFlowers(label, random, green, horizon));
  // Blades in front of the flowers: a flower in a meadow is rarely free on all sides.
  parts.push(drawBlades(random, green, Math.max(horizon, 150), label === 'grass' ? 70 : 18));
  return parts.join('');
}

function drawGround(random: Random, green: number, horizon: number): string {
  const near = hsl(green - 5, between(random, 30, 55), between(random, 16, 30));
  const far = hsl(green + 5, between(random, 25, 50), between(random, 28, 45));
  const sky = hsl(between(random, 195, 225), between(random, 10, 60), between(random, 65, 90));
  const patches = times(7, () => {
    const colour =
      random() < 0.4 ? hsl(between(random, 25, 40), 30, 25) : hsl(green, 40, between(random, 15, 45));
    const [x, y] = [between(random, 0, 400), between(random, horizon + 20, 300)];
    return `<ellipse cx="${x}" cy="${y}" rx="${between(random, 20, 110)}" ry="${between(random, 10, 40)}"
      fill="${colour}" opacity="${between(random, 0.15, 0.5)}"/>`;
  });
  return `<defs><linearGradient id="ground" x1="0" y1="0" x2="0" y2="1">
    <stop offset="0" stop-color="${far}"/><stop offset="1" stop-color="${near}"/></linearGradient></defs>
    <rect width="400" height="300" fill="${sky}"/>
    <rect y="${horizon}" width="400" height="${300 - horizon}" fill="url(#ground)"/>${patches.join('')}`;
}

function drawBlades(random: Random, green: number, top: number, count: number): string {
  const dry = random() < 0.4 ? between(random, 0.1, 0.6) : 0.05;
  const reach = between(random, 30, 130);
  return times(Math.round(count * between(random, 0.6, 1.4)), () => {
    const [x, y] = [between(random, -20, 420), between(random, top + 20, 330)];
    const [lean, length] = [between(random, -0.6, 0.6) * reach, reach * between(random, 0.4, 1.2)];
    // Straw is as yellow as a pale dandelion, so that yellow alone does not decide.
    const colour =
      random() < dry
        ? hsl(between(random, 40, 54), between(random, 25, 55), between(random, 45, 70))
        : hsl(green + between(random, -14, 14), between(random, 30, 65), between(random, 20, 58));
    return `<path d="M${x} ${y} Q${x + lean * 0.2} ${y - length * 0.7} ${x + lean} ${y - length}"
      stroke="${colour}" stroke-width="${between(random, 1, 4.5)}" fill="none" stroke-linecap="round"/>`;
  }).join('');
}

function drawFlowers(
  label: Exclude<DrawnClass, 'grass'>,
  random: Random,
  green: number,
  horizon: number,
): string {
  const near = random() < 0.35;
  const count = near ? 1 + Math.floor(random() * 2) : 5 + Math.floor(random() * 9);
  const size = near ? between(random, 55, 105) : between(random, 18, 36);
  const hue = between(random, 0, 1);
  const places = times(count, () => ({
    x: near ? between(random, 110, 290) : between(random, 20, 380),
    y: near ? between(random, 100, 190) : between(random, Math.max(40, horizon), 270),
    radius: size * between(random, 0.75, 1.25),
  }));
  // Far flowers first, so that near ones cover them.
  places.sort((a, b) => a.y - b.y);
  return places
    .map(({ x, y, radius }) => {
      const head = `translate(${x} ${y}) scale(${radius}) rotate(${between(random, -25, 25)})`;
      const tilt = between(random, 0.6, 1);
      const stem = `<path d="M${x} ${y} Q${x + between(random, -15, 15)} ${y + radius * 2}
        ${x + between(random, -25, 25)} ${y + radius * 5}" fill="none"
        stroke="${hsl(green, 35, between(random, 30, 50))}" stroke-width="${Math.max(1.5, radius * 0.12)}"/>`;
      return `${stem}<g transform="${head} scale(1 ${label === 'tulip' ? 1 : tilt})">${flowerHeads[label](random, hue)}</g>`;
    })
    .join('');
}

/** Flower heads of radius 1 around the origin; `hue` in 0..1 is shared by all flowers of a photo. */
const flowerHeads: Record<Exclude<DrawnClass, 'grass'>, (random: Random, hue: number) => string> = {
  dandelion: (random, hue) => {
    const rings = [1, 0.85, 0.68, 0.5, 0.32];
    return rings
      .map((radius, ring) => {
        const colour = hsl(46 + hue * 9 - ring * 1.5, between(random, 85, 100), 46 + ((ring * 7) % 13));
        return star(random, 26 - ring * 3, radius, radius * 0.72, colour);
      })
      .join('');
  },
  daisy: (random, hue) => {
    const petals = 11 + Math.floor(hue * 8);
    const white = hsl(between(random, 0, 60), 15, between(random, 88, 97));
    const ring = times(petals, (index) => {
      const angle = (360 / petals) * (index + between(random, -0.15, 0.15));
      return `<ellipse cx="0.66" rx="0.36" ry="${1.5 / petals}" fill="${white}" transform="rotate(${angle})"/>`;
    });
    return `${ring.join('')}<circle r="0.32" fill="${hsl(48, 90, between(random, 45, 55))}"/>`;
  },
  tulip: (random, hue) => {
    const base = [355, 335, 285, 20, 50][Math.floor(hue * 5)] ?? 355;
    const shade = (lightness: number) => hsl(base + between(random, -6, 6), 75, lightness);
    return `<path d="M-0.75 -0.9 C-1 0.3 -0.6 1 0 1 C0.6 1 1 0.3 0.75 -0.9 L0.35 -0.4 L0 -1 L-0.35 -0.4 Z"
      fill="${shade(42)}"/><path d="M0 -1 C-0.7 -0.2 -0.5 0.9 0 1 C0.5 0.9 0.7 -0.2 0 -1 Z" fill="${shade(54)}"/>`;
  },
  clover: (random, hue) => {
    const leaves = [90, 210, 330].map(
      (angle) =>
        `<g transform="rotate(${angle})"><ellipse cx="1" rx="0.55" ry="0.5" fill="${hsl(120, 40, 32)}"/>
        <path d="M1.2 -0.3 L0.9 0 L1.2 0.3" stroke="${hsl(110, 30, 60)}" stroke-width="0.08" fill="none"/></g>`,
    );
    const florets = times(22, () => {
      const [angle, distance] = [random() * 2 * Math.PI, Math.sqrt(random()) * 0.62];
      return `<ellipse cx="${Math.cos(angle) * distance}" cy="${Math.sin(angle) * distance}" rx="0.2" ry="0.09"
        fill="${hsl(310 + hue * 25, between(random, 35, 60), between(random, 55, 82))}"
        transform="rotate(${between(random, -60, 60)})"/>`;
    });
    return leaves.join('') + florets.join('');
  },
};

/** A disc with a toothed edge: what overlapping strap-shaped petals look like from above. */
function star(random: Random, points: number, outer: number, inner: number, colour: string): string {
  const turn = random() * Math.PI;
  const corners = times(points * 2, (index) => {
    const radius = (index % 2 === 0 ? outer : inner) * between(random, 0.93, 1.05);
    const angle = turn + (Math.PI * index) / points;
    return `${(Math.cos(angle) * radius).toFixed(3)},${(Math.sin(angle) * radius).toFixed(3)}`;
  });
  return `<polygon points="${corners.join(' ')}" fill="${colour}"/>`;
}

/** Light from one side, a colour cast and sensor noise; changes `pixels` (RGB, row-major) in place. */
function photograph(pixels: Buffer, width: number, height: number, random: Random): void {
  const exposure = between(random, 0.78, 1.15);
  const cast = times(3, () => exposure * between(random, 0.94, 1.06));
  const slope = { x: between(random, -0.25, 0.25), y: between(random, -0.25, 0.25) };
  const noise = between(random, 4, 22);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const light = 1 + slope.x * (x / width - 0.5) + slope.y * (y / height - 0.5);
      for (let channel = 0; channel < 3; channel++, at++) {
        const grain = (random() + random() - 1) * noise;
        const value = (pixels[at] ?? 0) * light * (cast[channel] ?? 1) + grain;
        pixels[at] = Math.min(255, Math.max(0, Math.round(value)));
      }
    }
  }
}

function between(random: Random, low: number, high: number): number {
  return low + (high - low) * random();
}

function hsl(hue: number, saturation: number, lightness: number): string {
  return `hsl(${Math.round((hue + 360) % 360)},${Math.round(saturation)}%,${Math.round(lightness)}%)`;
}

function times<Item>(count: number, make: (index: number) => Item): Item[] {
  return Array.from({ length: count }, (_, index) => make(index));
}
