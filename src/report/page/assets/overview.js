// The first view: what the stream does now, timelines with their histograms, and the batches.

import { batchColumns, shownBatches } from './batches.js';
import { Histogram, Timeline, durationScale, rateScale } from './charts.js';
import { Facts, Pager, Table, element, setText } from './dom.js';
import {
  NONE, formatBatchTime, formatBytes, formatDuration, formatNumber, formatRate, formatRecords, formatUptime, shortened,
} from './format.js';

const PAGE = 100;
const ERROR_CHARACTERS_MAX = 300;

const ROWS = [
  ['Scheduling Delay', 'schedulingDelayMs', 'Time taken by Streaming scheduler to submit jobs of a batch', false],
  ['Processing Time', 'processingTimeMs', 'Time taken to process all jobs of a batch', true],
  ['Total Delay', 'totalDelayMs', 'Total time taken to handle a batch', true],
];

const status = (receiver) => (receiver.active ? 'ACTIVE' : 'INACTIVE');

const RECEIVERS = [
  { title: 'Receiver', cell: (row) => row.name },
  { title: 'Status', cell: status },
  { title: 'Last Error Time', cell: (row) => (row.lastErrorTimeMs === null ? NONE : formatBatchTime(row.lastErrorTimeMs, 1_000)) },
  { title: 'Last Error Message', cell: (row) => shortened(row.lastError ?? NONE, ERROR_CHARACTERS_MAX) },
];

/** A row of the charts: a name with its average, a timeline, a histogram. */
class Row {
  constructor(title, help, className = '') {
    this.average = element('p', { class: 'average' });
    this.head = element('th', { scope: 'row', role: 'rowheader', title: help }, element('span', { class: 'of' }, title), this.average);
    this.timeline = new Timeline(`${title}, timeline`);
    this.histogram = new Histogram(`${title}, histogram`);
    this.node = element('tr', { role: 'row', class: className }, this.head,
      element('td', { role: 'cell' }, this.timeline.node), element('td', { role: 'cell' }, this.histogram.node));
  }

  update(average, chart) {
    setText(this.average, `Avg: ${average}`);
    this.timeline.update(chart);
    this.histogram.update(chart);
  }
}

export class Overview {
  constructor(api) {
    this.api = api;
    this.title = 'Streaming';
    this.sentence = element('p', { class: 'sentence' });
    this.banner = element('p', { class: 'banner', role: 'alert', hidden: true });
    this.facts = new Facts();
    this.#charts();
    this.running = new Table({ title: 'Running Batches', columns: batchColumns('active'), key: (row) => row.batchSeq, hideIfEmpty: true });
    this.waiting = new Table({ title: 'Waiting Batches', columns: batchColumns('active'), key: (row) => row.batchSeq, hideIfEmpty: true });
    this.completed = new Table({ title: 'Completed Batches', columns: batchColumns('completed'), key: (row) => row.batchSeq, hideIfEmpty: true });
    this.dropped = new Table({
      title: 'Dropped', columns: batchColumns('dropped'), hideIfEmpty: true,
      key: (row) => `${row.batchSeq} ${row.batchTimeMs} ${row.at}`,
    });
    this.receivers = new Table({ title: 'Receivers', columns: RECEIVERS, key: (row) => row.stream, hideIfEmpty: true });
    this.pager = new Pager(PAGE, () => this.#batches(true));
    this.node = element('div', {},
      element('h2', { tabindex: '-1' }, 'Streaming'), this.sentence, this.banner, this.facts.node, this.charts,
      this.running.node, this.waiting.node, this.completed.node, this.pager.node, this.dropped.node,
      this.receivers.node);
  }

  #charts() {
    this.rate = new Row('Input Rate', 'Records of a batch, over its interval');
    this.delays = ROWS.map(([title, key, help, limited]) => ({ row: new Row(title, help), key, limited }));
    this.streams = [];
    this.toggle = element('button', { type: 'button', class: 'toggle', 'aria-expanded': 'false', hidden: true }, 'each stream');
    this.toggle.addEventListener('click', () => {
      this.toggle.setAttribute('aria-expanded', String(this.toggle.getAttribute('aria-expanded') !== 'true'));
      this.#drawStreams();
    });
    this.rate.head.append(this.toggle);
    this.heading = element('th', { scope: 'col', role: 'columnheader' });
    this.body = element('tbody', { role: 'rowgroup' }, this.rate.node, ...this.delays.map(({ row }) => row.node));
    this.charts = element('table', { class: 'charts', role: 'table', 'aria-label': 'Timelines and histograms' },
      element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' },
        element('td', { role: 'cell' }), this.heading,
        element('th', { scope: 'col', role: 'columnheader' }, 'Histograms'))), this.body);
  }

  async update(model) {
    const first = !this.model;
    this.model = model;
    const { now } = model;
    const active = now.waiting.length + now.running.length;
    const interval = formatDuration(now.batchIntervalMs);
    setText(this.sentence, now.startTimeMs < 0 ? 'The stream has not planned its first batch yet.'
      : `Running batches of ${interval} for ${formatUptime(now.nowMs - now.startTimeMs)} since ` +
        `${formatBatchTime(now.startTimeMs, 1_000)} (${formatNumber(now.totalCompletedBatches)} completed batches, ` +
        `${formatRecords(now.receivedRecords)})`);
    this.banner.hidden = !now.failure;
    setText(this.banner, now.failure ? `The stream ended: ${now.failure}` : '');
    this.#facts(now);
    setText(this.heading, `Timelines (Last ${now.retainedCompletedBatches + active} batches, ${active} active, ` +
      `${now.retainedCompletedBatches} completed)`);
    this.#draw();
    this.receivers.update(now.receivers, `Receivers (${now.receivers.length})`);
    this.running.update(shownBatches(now.running, now), `Running Batches (${now.running.length})`);
    this.waiting.update(shownBatches(now.waiting, now), `Waiting Batches (${now.waiting.length})`);
    await this.#batches(first);
  }

  #facts(now) {
    const memory = `${formatBytes(now.memoryUsedBytes)} of ${formatBytes(now.memoryMaxBytes)}`;
    this.facts.update([
      ['Lag', formatRecords(now.lag), 'Latest minus committed offset, over all partitions'],
      ['Last batch', now.batchSeq > 0 ? formatNumber(now.batchSeq) : NONE],
      ['Batch interval', formatDuration(now.batchIntervalMs)],
      ['Rate limit', now.rateLimit === null ? 'none' : `${formatNumber(now.rateLimit)} records/sec`, 'Set by backpressure'],
      ['Memory', now.memoryMaxBytes > 0 ? memory : NONE, 'What is fetched and in flight, of its budget'],
      ['Partitions', formatNumber(now.partitions)],
      ['Epoch', formatNumber(now.epoch), 'The term of ownership under which this process commits'],
    ]);
  }

  #points(value) {
    const { points } = this.model;
    return points.batchSeq.map((seq, at) => ({
      seq, time: points.batchTimeMs[at], value: value(at), failed: points.failed[at],
    }));
  }

  #draw() {
    const { now, points } = this.model;
    const intervalMs = now.batchIntervalMs;
    const rate = (records) => (intervalMs > 0 ? (records * 1_000) / intervalMs : 0);
    const rates = this.#points((at) => rate(points.records[at]));
    this.rateScale = rateScale(rates.reduce((most, point) => Math.max(most, point.value), 0));
    this.rate.update(formatRate(now.averages.inputRate), { points: rates, scale: this.rateScale, intervalMs });
    // One scale for all three: what is small beside the others looks small.
    const longest = Math.max(0, ...ROWS.map(([, key]) => points[key].reduce((most, ms) => Math.max(most, ms ?? 0), 0)));
    const scale = durationScale(longest);
    for (const { row, key, limited } of this.delays) {
      row.update(formatDuration(now.averages[key]), {
        points: this.#points((at) => points[key][at]), scale, intervalMs,
        limit: limited ? intervalMs : null, limitText: `batch interval ${formatDuration(intervalMs)}`,
      });
    }
    this.toggle.hidden = now.streams.length < 2;
    this.#drawStreams();
  }

  /** One row for each input stream, below that of all, while they are asked for. */
  #drawStreams() {
    const { now, points } = this.model;
    const open = this.toggle.getAttribute('aria-expanded') === 'true' && !this.toggle.hidden;
    if (!open || this.streams.length !== now.streams.length) {
      this.streams.forEach((row) => row.node.remove());
      this.streams = [];
    }
    if (!open) return;
    if (this.streams.length === 0) {
      this.streams = now.streams.map((name, at) => new Row(`${name} [${at}]`, 'An input stream', 'stream'));
      this.streams.forEach((row) => {
        row.status = element('p', { class: 'average' });
        row.head.append(row.status);
      });
      this.rate.node.after(...this.streams.map((row) => row.node));
    }
    this.streams.forEach((row, stream) => {
      // Only a receiver has a status and errors of its own: offsets are read by the batch.
      const receiver = now.receivers.find((known) => known.stream === stream);
      const error = shortened(receiver?.lastError ?? NONE, ERROR_CHARACTERS_MAX);
      setText(row.status, `Status: ${receiver ? status(receiver) : NONE} · Last error: ${error}`);
      const rates = this.#points((at) => (points.streamRecords[stream][at] * 1_000) / now.batchIntervalMs);
      const mean = rates.reduce((sum, point) => sum + point.value, 0) / rates.length;
      row.update(rates.length ? formatRate(mean) : NONE, { points: rates, scale: this.rateScale, intervalMs: now.batchIntervalMs });
    });
  }

  async #batches(anew) {
    const { now } = this.model;
    if (anew || this.seenCompleted !== now.totalCompletedBatches) {
      const page = await this.api(`batches?from=${this.pager.from}&count=${PAGE}`);
      this.seenCompleted = now.totalCompletedBatches;
      const of = now.totalCompletedBatches.toLocaleString('en-US');
      this.completed.update(shownBatches(page.batches, now), `Completed Batches (last ${page.total} out of ${of})`);
      this.pager.update(page.total);
    }
    if (this.seenDropped !== now.totalDroppedBatches) {
      const { total, batches } = await this.api('dropped');
      this.seenDropped = now.totalDroppedBatches;
      // The count of those that came before is what tells one from another of the same batch.
      const rows = batches.map((row, at) => ({ ...row, at: total - at }));
      this.dropped.update(shownBatches(rows, now), `Dropped and planned again (last ${batches.length} out of ${formatNumber(total)})`);
    }
  }
}
