// Timelines and histograms, drawn as SVG.

import { drawn, element, freshId, setText } from './dom.js';
import { convertToUnit, formatBatchTime, formatNumber, normalizeDuration } from './format.js';

const HEIGHT = 124;
const MARGIN = { top: 14, right: 12, bottom: 22, left: 52 };
const BINS = 10;

/** The next number of the kind 1, 2, 2.5, 5 times a power of ten: where an axis ends. */
export function niceMax(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999999);
}

/** Of values in milliseconds: the unit of the axis, its end, and the text of a value. */
export function durationScale(maxMs) {
  const { unit } = normalizeDuration(maxMs);
  const size = 1 / convertToUnit(1, unit);
  const max = niceMax(maxMs / size) * size;
  return { max, text: (ms) => `${formatNumber(ms / size)} ${unit}`, tick: (ms) => `${formatNumber(ms / size)} ${unit}` };
}

/** The same of rates. */
export function rateScale(maxRate) {
  const short = Intl.NumberFormat('en-US', { notation: 'compact', maximumFractionDigits: 1 });
  const text = (rate) => `${formatNumber(rate)} records/sec`;
  return { max: niceMax(maxRate), text, tick: (rate) => `${short.format(rate)}/s` };
}

/** A chart that draws itself anew when its place gets wider or narrower. */
class Chart {
  constructor(className, title) {
    const [titleId, descriptionId] = [freshId('title'), freshId('description')];
    this.title = drawn('title', { id: titleId }, title);
    this.description = drawn('desc', { id: descriptionId });
    this.layer = drawn('g', {});
    this.svg = drawn('svg', { role: 'img', 'aria-labelledby': `${titleId} ${descriptionId}`, height: HEIGHT },
      this.title, this.description, this.layer);
    this.node = element('div', { class: `chart ${className}` }, this.svg);
    this.width = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width === this.width || width === 0) return;
      this.width = width;
      this.draw();
    }).observe(this.node);
  }

  /** Where a value lies. */
  y(value) {
    const height = HEIGHT - MARGIN.top - MARGIN.bottom;
    return MARGIN.top + height * (1 - Math.min(value, this.scale.max) / this.scale.max);
  }

  text(x, y, anchor, text) {
    return drawn('text', { x, y, 'text-anchor': anchor }, text);
  }

  show(nodes) {
    this.svg.setAttribute('width', this.width);
    this.svg.setAttribute('viewBox', `0 0 ${this.width} ${HEIGHT}`);
    this.layer.replaceChildren(...nodes);
  }
}

/**
 * Values over batch times. A click goes to the batch that is nearest; the tables below have the same for the keyboard.
 *
 * `points`: `{ time, value, seq, failed }`, the oldest first; those without a value are left out.
 */
export class Timeline extends Chart {
  constructor(title) {
    super('timeline', title);
    this.tip = element('div', { class: 'tip', 'aria-hidden': 'true', hidden: true });
    this.rule = drawn('line', { class: 'rule', y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
    this.node.append(this.tip);
    this.node.addEventListener('pointermove', (event) => this.#point(event));
    this.node.addEventListener('pointerleave', () => this.#leave());
    this.node.addEventListener('click', (event) => {
      const near = this.#nearest(event);
      if (near) location.hash = `#/batch/${near.seq}`;
    });
  }

  update({ points, scale, intervalMs, limit, limitText }) {
    const shown = points.filter((point) => point.value !== null && point.value !== undefined);
    Object.assign(this, { points: shown, scale, intervalMs, limit, limitText });
    setText(this.description, this.#words());
    if (this.width > 0) this.draw();
  }

  #words() {
    if (this.points.length === 0) return 'no completed batch yet';
    let [low, high, sum, failed] = [Infinity, -Infinity, 0, 0];
    for (const { value, failed: bad } of this.points) {
      [low, high, sum] = [Math.min(low, value), Math.max(high, value), sum + value];
      if (bad) failed += 1;
    }
    const text = this.scale.text;
    const mean = sum / this.points.length;
    const last = this.points.at(-1);
    return `${this.points.length} batches: lowest ${text(low)}, average ${text(mean)}, highest ${text(high)}, ` +
      `last ${text(last.value)} at ${formatBatchTime(last.time, this.intervalMs)}${failed ? `, ${failed} failed` : ''}`;
  }

  x(time) {
    const [first, last] = [this.points[0].time, this.points.at(-1).time];
    const width = this.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + (last === first ? width : (width * (time - first)) / (last - first));
  }

  draw() {
    if (!this.points) return;
    const [left, right, bottom] = [MARGIN.left, this.width - MARGIN.right, HEIGHT - MARGIN.bottom];
    const nodes = [0, 0.5, 1].flatMap((part) => {
      const value = this.scale.max * part;
      const y = this.y(value);
      return [drawn('line', { class: 'grid', x1: left, x2: right, y1: y, y2: y }),
        this.text(left - 6, y + 4, 'end', this.scale.tick(value))];
    });
    if (this.points.length > 0) nodes.push(...this.#curve(left, bottom));
    if (this.limit) nodes.push(...this.#limit(left, right));
    if (this.points.length > 1) {
      const label = (point) => formatBatchTime(point.time, 1_000, false);
      nodes.push(this.text(left, HEIGHT - 6, 'start', label(this.points[0])),
        this.text(right, HEIGHT - 6, 'end', label(this.points.at(-1))));
    }
    this.show(nodes);
  }

  #curve(left, bottom) {
    const place = ({ time, value }) => `${this.x(time).toFixed(1)} ${this.y(value).toFixed(1)}`;
    const line = `M${this.points.map(place).join('L')}`;
    const last = this.points.at(-1);
    const start = this.x(this.points[0].time).toFixed(1);
    const nodes = [
      drawn('path', { class: 'area', d: `${line}L${this.x(last.time).toFixed(1)} ${bottom}L${start} ${bottom}Z` }),
      drawn('path', { class: 'curve', d: line }),
      drawn('circle', { class: 'last', cx: this.x(last.time), cy: this.y(last.value), r: 3 }),
    ];
    // A cross, and not a colour alone.
    for (const point of this.points.filter((each) => each.failed)) {
      const [x, y] = [this.x(point.time), this.y(point.value)];
      nodes.push(drawn('path', { class: 'failed', d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8` }));
    }
    return nodes;
  }

  #limit(left, right) {
    const above = this.limit > this.scale.max;
    const y = above ? MARGIN.top : this.y(this.limit);
    const label = this.text(right, y < MARGIN.top + 12 ? y + 12 : y - 4, 'end', `${this.limitText}${above ? ' (above)' : ''}`);
    label.setAttribute('class', 'limit-text');
    return above ? [label] : [drawn('line', { class: 'limit', x1: left, x2: right, y1: y, y2: y }), label];
  }

  #nearest(event) {
    if (!this.points?.length) return null;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    let [low, high] = [0, this.points.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.x(this.points[middle].time) < x) low = middle + 1;
      else high = middle;
    }
    const before = this.points[Math.max(0, low - 1)];
    const after = this.points[low];
    return x - this.x(before.time) < this.x(after.time) - x ? before : after;
  }

  #point(event) {
    const near = this.#nearest(event);
    if (!near) return;
    const x = this.x(near.time);
    this.rule.setAttribute('x1', x);
    this.rule.setAttribute('x2', x);
    this.layer.append(this.rule);
    const time = formatBatchTime(near.time, this.intervalMs, false);
    setText(this.tip, `${time} · ${this.scale.text(near.value)} · batch ${near.seq}${near.failed ? ' · failed' : ''}`);
    this.tip.hidden = false;
    const room = this.width - this.tip.offsetWidth - 4;
    this.tip.style.transform = `translateX(${Math.max(0, Math.min(x - this.tip.offsetWidth / 2, room))}px)`;
  }

  #leave() {
    this.tip.hidden = true;
    this.rule.remove();
  }
}

/** How many batches have a value of each tenth of the scale; its height is that of the timeline beside it. */
export class Histogram extends Chart {
  constructor(title) {
    super('histogram', title);
  }

  update({ points, scale }) {
    this.scale = scale;
    this.bins = new Array(BINS).fill(0);
    for (const { value } of points) {
      if (value === null || value === undefined) continue;
      this.bins[Math.min(BINS - 1, Math.max(0, Math.floor((value / scale.max) * BINS)))] += 1;
    }
    const step = scale.max / BINS;
    const words = this.bins.map((count, at) => [count, at]).filter(([count]) => count > 0)
      .map(([count, at]) => `${scale.text(at * step)} to ${scale.text((at + 1) * step)}: ${count}`);
    setText(this.description, words.length ? `batches by value: ${words.join(', ')}` : 'no completed batch yet');
    if (this.width > 0) this.draw();
  }

  draw() {
    if (!this.bins) return;
    const [left, right] = [4, this.width - MARGIN.right];
    const most = Math.max(1, ...this.bins);
    const height = (HEIGHT - MARGIN.top - MARGIN.bottom) / BINS;
    const nodes = [drawn('line', { class: 'grid', x1: left, x2: left, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom })];
    this.bins.forEach((count, at) => {
      const y = HEIGHT - MARGIN.bottom - (at + 1) * height;
      const width = ((right - left) * count) / most;
      if (count > 0) nodes.push(drawn('rect', { class: 'bar', x: left, y: y + 0.5, width: Math.max(1, width), height: height - 1 }));
    });
    nodes.push(this.text(left, HEIGHT - 6, 'start', '0'),
      this.text(right, HEIGHT - 6, 'end', `${formatNumber(most)} ${most === 1 ? 'batch' : 'batches'}`));
    this.show(nodes);
  }
}
