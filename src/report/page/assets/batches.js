// Tables of batches, and the page of one.

import { Facts, Pager, Table, element, setText } from './dom.js';
import { NONE, formatBatchTime, formatBytes, formatDuration, formatNumber, formatRecords, shortened } from './format.js';

const PAGE = 100;
const FAILURE_CHARACTERS_MAX = 100;

/** Why a batch or an operation failed, as Spark's page begins the line. */
export const failureText = (failure) => (failure ? `Failed due to error: ${failure}` : NONE);

/** Rows as the columns below want them. */
export const shownBatches = (rows, now) => rows.map((row) => ({ ...row, intervalMs: now.batchIntervalMs }));

const TIME = {
  title: 'Batch Time',
  cell: (row) => ({
    text: formatBatchTime(row.batchTimeMs, row.intervalMs ?? 0),
    href: row.status === 'dropped' ? null : `#/batch/${row.batchSeq}`,
    note: row.failed ? 'failed' : null,
    kind: 'bad',
  }),
};
const SEQ = { title: 'Batch', number: true, cell: (row) => formatNumber(row.batchSeq) };
const RECORDS = { title: 'Records', number: true, cell: (row) => formatRecords(row.records) };
const SCHEDULING = {
  title: 'Scheduling Delay', number: true, help: 'Time taken by Streaming scheduler to submit jobs of a batch',
  cell: (row) => formatDuration(row.schedulingDelayMs),
};
const PROCESSING = {
  title: 'Processing Time', number: true, help: 'Time taken to process all jobs of a batch',
  cell: (row) => formatDuration(row.processingTimeMs),
};
const TOTAL = {
  title: 'Total Delay', number: true, help: 'Total time taken to handle a batch', cell: (row) => formatDuration(row.totalDelayMs),
};
const OPERATIONS = {
  title: 'Output Ops: Succeeded/Total', number: true, cell: (row) => `${row.outputOpsSucceeded}/${row.outputOpsTotal}`,
};
const STATUS = { title: 'Status', cell: (row) => row.status };
const FAILURE = { title: 'Why', cell: (row) => shortened(row.failure ?? NONE, 3 * FAILURE_CHARACTERS_MAX) };

/** The columns of a table of batches: `active`, `completed` or `dropped`. */
export function batchColumns(kind) {
  if (kind === 'active') return [TIME, SEQ, RECORDS, SCHEDULING, PROCESSING, OPERATIONS, STATUS];
  if (kind === 'dropped') return [TIME, SEQ, RECORDS, FAILURE];
  return [TIME, SEQ, RECORDS, SCHEDULING, PROCESSING, TOTAL, OPERATIONS];
}

/** A failure: one line, or its beginning with the rest behind it. */
function failure(text) {
  const whole = failureText(text);
  if (whole.length <= FAILURE_CHARACTERS_MAX) return element('p', { class: 'banner' }, whole);
  return element('details', { class: 'banner' }, element('summary', {}, shortened(whole, FAILURE_CHARACTERS_MAX)),
    element('p', {}, whole));
}

/** A duration, where it is known. */
const known = (ms) => (ms === null ? null : formatDuration(ms));

/** What a batch did with its time: reading, waiting for the batch before, its transaction, and the rest. */
function parts({ processingTimeMs: worked, commitTimeMs, waitTimeMs, readTimeMs }) {
  const written = Math.min(commitTimeMs ?? 0, worked);
  const waited = Math.min(waitTimeMs ?? 0, worked - written);
  const read = Math.min(readTimeMs ?? 0, worked - written - waited);
  return { written, waited, read, transformed: worked - written - waited - read };
}

const transformed = (batch) => (batch.readTimeMs === null || batch.processingTimeMs === null ? null : parts(batch).transformed);

/** One batch: its sums, its outputs and its ranges. */
export class Batch {
  constructor(api, word) {
    Object.assign(this, { api, word, title: `Batch ${word}` });
    this.node = element('div', {}, element('h2', { tabindex: '-1' }, this.title));
    this.filter = '';
  }

  async update(model) {
    // What has ended does not change any more, but for its neighbours.
    if (this.over && this.lastSeq === model.now.batchSeq) return;
    this.lastSeq = model.now.batchSeq;
    if (this.word === '') return this.#message('Missing id parameter');
    const details = /^[0-9]+$/.test(this.word) ? await this.api(`batches/${this.word}`, true) : null;
    if (!details) return this.#message(`Batch ${this.word} does not exist, or is not kept any more: the ledger has it.`);
    this.details = details;
    this.over = !['queued', 'processing'].includes(details.status);
    if (!this.summary) this.#build();
    this.#show(model.now);
  }

  #message(text) {
    this.over = false;
    this.summary = null;
    this.node.replaceChildren(element('h2', { tabindex: '-1' }, this.title), element('p', { class: 'banner' }, text),
      element('p', {}, element('a', { href: '#/' }, 'All batches')));
  }

  #build() {
    this.subtitle = element('p', { class: 'sentence' });
    this.links = element('nav', { class: 'pager', 'aria-label': 'Batches beside this one' });
    this.summary = new Facts();
    this.failures = element('div', {});
    this.stages = element('div', { class: 'stages' });
    this.outputs = new Table({
      title: 'Output operations', key: (row) => row.id, columns: [
        { title: 'Output Op Id', cell: (row) => row.id },
        { title: 'Description', cell: (row) => ({ text: row.name, note: row.description, kind: 'under' }) },
        { title: 'Output Op Duration', number: true, cell: (row) => formatDuration(row.durationMs) },
        { title: 'Status', cell: (row) => row.status },
        { title: 'Error', cell: (row) => failureText(row.failure) },
      ],
    });
    this.ranges = new Table({
      title: 'Input Metadata', key: (row) => `${row.partition} ${row.topic}`, columns: [
        { title: 'Topic', cell: (row) => row.topic },
        { title: 'Partition', number: true, cell: (row) => row.partition },
        { title: 'From', number: true, help: 'The first offset', cell: (row) => formatNumber(row.fromOffset) },
        { title: 'Until', number: true, help: 'The first offset after the range', cell: (row) => formatNumber(row.untilOffset) },
        { title: 'Records', number: true, cell: (row) => formatNumber(row.records) },
        { title: 'Gaps', number: true, help: 'Offsets without a record', cell: (row) => formatNumber(row.gaps) },
      ],
    });
    this.search = element('input', { type: 'search', autocomplete: 'off' });
    this.search.addEventListener('input', () => this.#ranges());
    this.pager = new Pager(PAGE, () => this.#ranges());
    this.left = element('p', { class: 'sentence' });
    this.node.replaceChildren(element('h2', { tabindex: '-1' }, this.title), this.subtitle, this.links, this.failures,
      this.summary.node, this.stages, this.outputs.node, this.ranges.node,
      element('label', { class: 'filter' }, 'Topic contains ', this.search), this.pager.node, this.left);
  }

  #show(now) {
    const batch = this.details;
    const interval = batch.batchIntervalMs;
    setText(this.subtitle, `${formatBatchTime(batch.batchTimeMs, interval)}, ${batch.status}`);
    const beside = [];
    if (batch.batchSeq > 1) beside.push(element('a', { href: `#/batch/${batch.batchSeq - 1}` }, `Batch ${batch.batchSeq - 1}`));
    beside.push(element('a', { href: '#/' }, 'All batches'));
    if (batch.batchSeq < now.batchSeq) beside.push(element('a', { href: `#/batch/${batch.batchSeq + 1}` }, `Batch ${batch.batchSeq + 1}`));
    const told = JSON.stringify([beside.length, batch.failure]);
    if (this.told !== told) {
      this.told = told;
      this.links.replaceChildren(...beside);
      this.failures.replaceChildren(...(batch.failure ? [failure(batch.failure)] : []));
    }
    const letters = batch.deadLetters.map(({ stage, records }) => `${formatNumber(records)} ${stage}`);
    const lost = batch.lostRanges.map(({ reason, offsets }) => `${formatNumber(offsets)} ${reason}`);
    this.summary.update([
      ['Batch Duration', formatDuration(interval)],
      ['Input data size', formatRecords(batch.records)],
      ['Scheduling delay', formatDuration(batch.schedulingDelayMs), 'Time taken by Streaming scheduler to submit jobs of a batch'],
      ['Processing time', formatDuration(batch.processingTimeMs), 'Time taken to process all jobs of a batch'],
      ['Total delay', formatDuration(batch.totalDelayMs), 'Total time taken to handle a batch'],
      ['Transaction', batch.commitTimeMs === null ? null : formatDuration(batch.commitTimeMs), 'How long it was open, the answer to COMMIT included'],
      ['Plan', known(batch.planTimeMs), 'Asking Kafka for offsets, and planning the ranges'],
      ['Reading', known(batch.readTimeMs), 'The share of tasks that waited for records and took them'],
      ['Transforming', known(transformed(batch)), 'The job\'s operations, and what is written before the transaction'],
      ['Waiting for the batch before', known(batch.waitTimeMs), 'Read and transformed, for the commit of the batch before'],
      ['Rows', batch.status === 'completed' ? formatNumber(batch.rows) : null],
      ['Gaps', batch.status === 'completed' ? formatNumber(batch.gaps) : null, 'Offsets without a record'],
      ['Bytes', batch.status === 'completed' ? formatBytes(batch.bytes) : null, 'Of keys and values'],
      ['Late', batch.lateRecords > 0 ? formatRecords(batch.lateRecords) : null],
      ['Dead letters', letters.length ? letters.join(', ') : null],
      ['Lost offsets', lost.length ? lost.join(', ') : null],
      ...(batch.streams.length > 1 ? batch.streams.map(({ name, records }, at) => [`${name} [${at}]`, formatRecords(records)]) : []),
    ]);
    this.#stages();
    this.outputs.update(batch.outputs, `Output operations (${batch.outputs.length})`);
    this.#ranges();
  }

  /** Where the time of the batch went, as a bar; the values are in the list above it. */
  #stages() {
    const { schedulingDelayMs: late, totalDelayMs: total, readTimeMs } = this.details;
    this.stages.hidden = !total;
    if (!total) return;
    const { written, waited, read, transformed } = parts(this.details);
    const rest = readTimeMs === null ? 'reading, transforming' : 'transforming';
    const stages = [['waiting', late, 0], ['reading', read, 3], [rest, transformed, 1], ['waiting for the batch before', waited, 0], ['transaction', written, 2]];
    this.stages.replaceChildren(...stages.filter(([, ms]) => ms > 0).map(([name, ms, color]) => {
      const part = element('span', { class: `stage stage-${color}`, title: `${name}: ${formatDuration(ms)}` }, `${name} ${formatDuration(ms)}`);
      part.style.flexGrow = String(ms);
      return part;
    }));
  }

  #ranges() {
    const { ranges, rangesTotal } = this.details;
    const wanted = this.search.value.toLowerCase();
    const found = ranges.filter((range) => range.topic.toLowerCase().includes(wanted));
    this.pager.update(found.length);
    this.ranges.update(found.slice(this.pager.from, this.pager.from + PAGE), `Input Metadata (${formatNumber(rangesTotal)} ranges)`);
    const missing = rangesTotal - ranges.length;
    setText(this.left, missing <= 0 ? '' : ranges.length > 0
      ? `The ${formatNumber(ranges.length)} longest ranges are shown; the ledger has all ${formatNumber(rangesTotal)}.`
      : 'The ranges of this batch are not kept here any more: the ledger has them.');
  }
}
