// A chart of rates: one line a series, drawn as SVG, with the values under the pointer.

import { useState } from 'preact/hooks';

import { count, html } from './parts.js';

const WIDTH = 720;
const HEIGHT = 160;
const FOOT = 18;

/** `points` are `{at, values: {name: rate}}` in order of time; `names` the series. */
export function Chart({ title, points, names, span }) {
  const [hover, setHover] = useState(null);
  if (points.length < 2) return html`<p class="empty">${title}: the first figures come in a moment.</p>`;
  const until = points.at(-1).at;
  const since = until - span;
  const shown = points.filter(({ at }) => at >= since);
  const top = Math.max(1, ...shown.flatMap(({ values }) => names.map((name) => values[name] ?? 0)));
  const x = (at) => ((at - since) / span) * WIDTH;
  const y = (value) => HEIGHT - FOOT - (value / top) * (HEIGHT - FOOT - 8);
  const line = (name) => shown.map(({ at, values }) => `${x(at).toFixed(1)},${y(values[name] ?? 0).toFixed(1)}`).join(' ');
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = since + ((event.clientX - box.left) / box.width) * span;
    setHover(shown.reduce((best, one) => (Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best)));
  };
  const told = hover ?? shown.at(-1);
  const value = (name) => (told.values[name] ?? 0).toLocaleString('en', { maximumFractionDigits: 1 });
  return html`<figure class="chart">
    <figcaption>${title}
      ${names.map((name) => html`<span class="key ${name}">${name} ${value(name)}</span>`)}
      <span class="when">${new Date(told.at).toLocaleTimeString('sv')}</span>
    </figcaption>
    <span class="top" aria-hidden="true">${count(Math.ceil(top))}/s</span>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" preserveAspectRatio="none"
      aria-label=${`${title}: ${names.map((name) => `${name} ${value(name)}`).join(', ')}`}
      onPointerMove=${point} onPointerLeave=${() => setHover(null)}>
      <line x1="0" x2=${WIDTH} y1=${y(0)} y2=${y(0)} class="axis" />
      <line x1="0" x2=${WIDTH} y1=${y(top)} y2=${y(top)} class="grid" />
      ${names.map((name) => html`<polyline class="line ${name}" points=${line(name)} />`)}
      ${hover && html`<line class="cursor" x1=${x(hover.at)} x2=${x(hover.at)} y1="0" y2=${HEIGHT - FOOT} />`}
    </svg>
  </figure>`;
}
